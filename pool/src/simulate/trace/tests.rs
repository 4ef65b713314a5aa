use proptest::prelude::*;

use super::*;
use crate::fake;

fn config() -> Config {
    fake::config([fake::pool("api"), fake::pool("web")])
}

fn read(text: impl AsRef<[u8]>) -> Result<Vec<Arrival>, String> {
    let trace = Trace::read(text.as_ref(), "t.csv", &config());
    trace.map(|trace| trace.arrivals).map_err(|error| error.to_string())
}

fn arrival_at(millis: u64, pool: usize, service_ms: u64) -> Arrival {
    Arrival { at: Duration::from_millis(millis), service: Duration::from_millis(service_ms), pool }
}

#[test]
fn fields_are_read_whatever_the_ends_of_lines_and_the_quotes() {
    let expected = Ok(vec![arrival_at(0, 1, 5), arrival_at(1500, 0, 20), arrival_at(1500, 1, 0)]);
    let text = "arrival_s,pool,service_ms\n0,web,5\n1.5,api,20\n1.5,web,0\n";
    assert_eq!(read(text), expected);
    assert_eq!(read(text.trim_end()), expected);
    assert_eq!(read(text.replace('\n', "\r\n")), expected);
    assert_eq!(read(text.replace('\n', "\n\n")), expected);
    assert_eq!(read(format!("\u{feff}{text}")), expected);
    assert_eq!(read(text.replace("web", "\"web\"").replace("pool", "\"pool\"")), expected);
    let more = "arrival_s,pool,service_ms,class,client\n0,web,5,default,10.0.0.1\n1.5,api,20,default,\n1.5,web,0,default,::1\n";
    assert_eq!(read(more), expected);
}

#[test]
fn each_mistake_is_named_with_its_line_and_column() {
    let header = "arrival_s,pool,service_ms";
    let four = format!("{header},class");
    for (text, message) in [
        ("", "t.csv:1:1: is empty; the first line has to be arrival_s,pool,service_ms".to_owned()),
        ("arrival_s,pool", "t.csv:1:15: lacks the column service_ms".to_owned()),
        ("0,web,5", "t.csv:1:1: has to be the column arrival_s, is \"0\"".to_owned()),
        (&format!("{four},client,x"), "t.csv:1:40: is a column too many: \"x\"".to_owned()),
        (header, "t.csv:2:1: is the end, and there was no arrival".to_owned()),
        (&format!("{header}\n0,web"), "t.csv:2:6: lacks the field service_ms".to_owned()),
        (
            &format!("{header}\n0,web,5,x"),
            "t.csv:2:9: is a field too many; the header has 3 columns".to_owned(),
        ),
        (&format!("{four}\n0,web,5"), "t.csv:2:8: lacks the field class".to_owned()),
        (&format!("{four}\n0,web,5,gold"), "t.csv:2:9: class: there is no class \"gold\"".to_owned()),
        (&format!("{header}\n0,web,5\n0,wob,5"), "t.csv:3:3: pool: there is no pool \"wob\"".to_owned()),
        (
            &format!("{header}\n2,web,5\n1,web,5"),
            "t.csv:3:1: arrival_s: 1 is earlier than the line before".to_owned(),
        ),
        (&format!("{header}\nNaN,web,5"), "t.csv:2:1: arrival_s: \"NaN\" is no finite number".to_owned()),
        (&format!("{header}\n0,web,inf"), "t.csv:2:7: service_ms: \"inf\" is no finite number".to_owned()),
        (&format!("{header}\n-1,web,5"), "t.csv:2:1: arrival_s: \"-1\" is negative".to_owned()),
        (&format!("{header}\n0,web,-0.1"), "t.csv:2:7: service_ms: \"-0.1\" is negative".to_owned()),
        (
            &format!("{header}\n1e300,web,5"),
            "t.csv:2:1: arrival_s: \"1e300\" is more than 2678400".to_owned(),
        ),
        (
            &format!("{header}\n0,web,1e11"),
            "t.csv:2:7: service_ms: \"1e11\" is more than 86400000".to_owned(),
        ),
        (&format!("{header}\n0,web,"), "t.csv:2:7: service_ms: \"\" is no number".to_owned()),
        (&format!("{header}\n0,web, 5"), "t.csv:2:7: service_ms: \" 5\" is no number".to_owned()),
        (
            &format!("{header}\n0,\"we\"b,5"),
            "t.csv:2:3: has a quote that does not stand around a whole field".to_owned(),
        ),
        (
            &format!("{header}\n0,\"web,5"),
            "t.csv:2:3: has a quote that does not stand around a whole field".to_owned(),
        ),
    ] {
        assert_eq!(read(text), Err(message), "{text:?}");
    }
}

#[test]
fn bytes_that_are_no_text_and_lines_without_an_end_are_refused() {
    let mut text = b"arrival_s,pool,service_ms\n0,web,5\n0,\xff".to_vec();
    assert_eq!(read(&text), Err("t.csv:3:3: is not UTF-8".to_owned()));
    text.truncate(text.len() - 1);
    text.resize(1 << 20, b'0');
    assert_eq!(read(&text), Err("t.csv:3:4097: is over the 4096 bytes of a line".to_owned()));
}

proptest! {
    #[test]
    fn no_text_panics(text in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = read(text);
    }

    #[test]
    fn no_line_panics(line in "[0-9a-z.,\"e+ \\r-]{0,40}") {
        let _ = read(format!("arrival_s,pool,service_ms\n{line}\n0,web,1\n"));
    }
}
