use proptest::prelude::*;

use super::*;

fn selector(name: &str, labels: &[(&str, &str)]) -> MetricSelector {
    let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    MetricSelector { text: name.to_owned(), name: name.to_owned(), labels }
}

fn read(text: &[u8], selector: &MetricSelector) -> Result<f64, ExpositionError> {
    let mut exposition = Exposition::new(selector);
    exposition.push(text)?;
    exposition.finish()
}

fn jobs(text: &str) -> Result<f64, ExpositionError> {
    read(text.as_bytes(), &selector("jobs", &[]))
}

/// From the format's own documentation.
const EXAMPLE: &str = r#"# HELP http_requests_total The total number of HTTP requests.
# TYPE http_requests_total counter
http_requests_total{method="post",code="200"} 1027 1395066363000
http_requests_total{method="post",code="400"}    3 1395066363000

# Escaping in label values:
msdos_file_access_time_seconds{path="C:\\DIR\\FILE.TXT",error="Cannot find file:\n\"FILE.TXT\""} 1.458255915e9

# Minimalistic line:
metric_without_timestamp_and_labels 12.47

# A weird metric from before the epoch:
something_weird{problem="division by zero"} +Inf -3982045

http_request_duration_seconds_bucket{le="0.05"} 24054
http_request_duration_seconds_bucket{le="+Inf"} 144320
rpc_duration_seconds{quantile="0.01"} NaN
"#;

#[test]
fn the_documentations_example_is_read() {
    let value = |name, labels: &[_]| read(EXAMPLE.as_bytes(), &selector(name, labels));
    assert_eq!(value("metric_without_timestamp_and_labels", &[]), Ok(12.47));
    assert_eq!(value("http_requests_total", &[]), Ok(1030.0), "the sum");
    assert_eq!(value("http_requests_total", &[("code", "400")]), Ok(3.0));
    assert_eq!(value("http_requests_total", &[("code", "400"), ("method", "post")]), Ok(3.0));
    assert_eq!(value("http_requests_total", &[("code", "40")]), Err(ExpositionError::Missing));
    let path = ("path", "C:\\DIR\\FILE.TXT");
    assert_eq!(value("msdos_file_access_time_seconds", &[path]), Ok(1.458255915e9));
    let error = ("error", "Cannot find file:\n\"FILE.TXT\"");
    assert_eq!(value("msdos_file_access_time_seconds", &[error, path]), Ok(1.458255915e9));
    assert_eq!(value("something_weird", &[]), Err(ExpositionError::NoAmount(13)));
    assert_eq!(value("http_requests", &[]), Err(ExpositionError::Missing));
}

#[test]
fn what_may_be_missing_or_more_is_no_harm() {
    for text in [
        "jobs 7",
        "jobs 7\n",
        "\n\njobs\t7\r\n",
        "  jobs  7  ",
        "jobs{} 7",
        "jobs{ } 7 -12",
        "jobs {a=\"b\",} 7",
        "jobs{ a = \"b\" , c=\"\" }7",
        "jobs 3\njobs 4",
        "jobs 0.07e2",
        "jobs{a=\"}\",b=\"\\\\\",c=\"\\\"\"} 7",
        "jobs{a=\"\u{1f980}\"} 7",
    ] {
        assert_eq!(jobs(text), Ok(7.0), "{text:?}");
    }
}

#[test]
fn what_is_no_sample_spoils_it_all() {
    for text in [
        "<html>",
        "jobs",
        "jobs{a=\"b\"}",
        "jobs{a=\"b\" 7",
        "jobs{a=\"b} 7",
        "jobs{a=b} 7",
        "jobs{a} 7",
        "jobs{,} 7",
        "jobs{=\"b\"} 7",
        "jobs{1a=\"b\"} 7",
        "jobs{a=\"b\"c=\"d\"} 7",
        "jobs{\"jobs\"} 7",
        "jobs seven",
        "jobs 0x7",
        "jobs 7,0",
        "jobs 7 now",
        "jobs 7 1 1",
        "jobs 7 # {trace=\"1\"} 1",
        "1jobs 7",
        "jöbs 7",
        "jobs7-7",
        "{} 7",
        "= 7",
        "\u{0}",
    ] {
        let text = format!("jobs 1\n{text}\njobs 1\n");
        assert_eq!(jobs(&text), Err(ExpositionError::NoSample(2)), "{text:?}");
    }
    let gzip = [&b"jobs 1\n"[..], &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0]].concat();
    assert_eq!(read(&gzip, &selector("jobs", &[])), Err(ExpositionError::NoSample(2)));
}

#[test]
fn no_value_but_an_amount_counts() {
    for value in ["NaN", "nan", "+Inf", "-Inf", "inf", "Infinity", "-1", "-1e-300", "1e309"] {
        assert_eq!(jobs(&format!("jobs {value}")), Err(ExpositionError::NoAmount(1)), "{value}");
        assert_eq!(jobs(&format!("jobs 1\nothers {value}")), Ok(1.0), "{value} of another");
    }
    assert_eq!(jobs("jobs -0"), Ok(0.0));
    assert_eq!(jobs("jobs 1e308"), Ok(1e308));
    assert_eq!(jobs("jobs 1e308\njobs 1e308"), Ok(f64::MAX));
    assert_eq!(jobs(""), Err(ExpositionError::Missing));
    assert_eq!(jobs("# jobs 1"), Err(ExpositionError::Missing));
}

#[test]
fn no_line_is_kept_that_is_too_long() {
    let selector = selector("jobs", &[]);
    let mut exposition = Exposition::new(&selector);
    exposition.push(b"jobs 1\n").unwrap();
    for _ in 0..LINE_MAX {
        exposition.push(b"#").unwrap();
    }
    assert_eq!(exposition.push(b"#"), Err(ExpositionError::LongLine(2)));
    assert!(exposition.line.capacity() <= 2 * LINE_MAX);
}

proptest! {
    #[test]
    fn anything_is_read_the_same_in_pieces_and_gives_an_amount_or_an_error(
        text in "(jobs|[a-z{}=\"\\\\,# \u{e9}]{0,6}|\\{(kind=\"[a-z\\\\\"]{0,3}\",?){0,2}\\}| -?[0-9]{1,3}(\\.[0-9])?|\n){0,30}",
        cuts in proptest::collection::vec(0..400usize, 0..5),
    ) {
        let selector = selector("jobs", &[("kind", "a")]);
        let whole = read(text.as_bytes(), &selector);
        if let Ok(value) = whole {
            prop_assert!(value.is_finite() && value >= 0.0);
        }
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
        cuts.extend([0, text.len()]);
        cuts.sort_unstable();
        let mut exposition = Exposition::new(&selector);
        let pushed = cuts.windows(2).try_for_each(|cut| exposition.push(&text.as_bytes()[cut[0]..cut[1]]));
        prop_assert_eq!(pushed.and_then(|()| exposition.finish()), whole);
    }

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        // Whatever comes of it.
        let _ = read(&bytes, &selector("jobs", &[]));
    }

    #[test]
    fn every_sample_is_found(
        values in proptest::collection::vec(0..1_000_000u32, 1..20),
        kind in "[ -~\u{e9}\n]{0,8}",
    ) {
        let escaped = kind.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let lines = values.iter().map(|value| format!("jobs{{n=\"1\",kind=\"{escaped}\"}} {value}\njobs 1\n"));
        let sum = values.iter().map(|value| f64::from(*value)).sum::<f64>();
        prop_assert_eq!(read(lines.collect::<String>().as_bytes(), &selector("jobs", &[("kind", &kind)])), Ok(sum));
    }
}
