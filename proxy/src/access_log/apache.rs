//! Lines as Apache writes them (mod_log_config): `common` is `%h %l %u %t "%r" %>s %b`, and `combined` has
//! `"%{Referer}i" "%{User-agent}i"` behind that.
//!
//! Whatever clients send, a line is one line, and its quotes are where they belong: bytes are escaped as Apache does it.

use std::io::{self, Write as _};
use std::time::{Duration, UNIX_EPOCH};

use super::Record;

/// Adds one line to `out`. Whether that could be done, as it always can in memory.
pub(super) fn write(record: &Record<'_>, combined: bool, out: &mut Vec<u8>) -> bool {
    try_write(record, combined, out).is_ok()
}

fn try_write(record: &Record<'_>, combined: bool, out: &mut Vec<u8>) -> io::Result<()> {
    match record.client {
        Some(client) => write!(out, "{client}")?,
        None => out.push(b'-'),
    }
    out.extend_from_slice(b" - ");
    escape(record.user.unwrap_or("-").as_bytes(), out)?;
    write!(out, " [{}] \"", time(record.ts))?;
    match (record.method, record.target, record.protocol) {
        (Some(method), Some(target), Some(protocol)) => {
            escape(method.as_bytes(), out)?;
            out.push(b' ');
            escape(target, out)?;
            out.push(b' ');
            out.extend_from_slice(protocol.as_bytes());
        }
        _ => out.push(b'-'),
    }
    write!(out, "\" {} ", record.status)?;
    match record.bytes_out {
        0 => out.push(b'-'),
        bytes => write!(out, "{bytes}")?,
    }
    if combined {
        for field in [record.referer, record.user_agent] {
            out.extend_from_slice(b" \"");
            escape(field.unwrap_or(b"-"), out)?;
            out.push(b'"');
        }
    }
    out.push(b'\n');
    Ok(())
}

/// `10/Oct/2000:13:55:36 +0000`, in UTC.
fn time(seconds: f64) -> String {
    // The day before 1970 and the year 10000 are no times at which a request can come.
    let since = Duration::try_from_secs_f64(seconds).unwrap_or_default();
    let latest = Duration::from_secs(253_402_300_799);
    // `Sun, 06 Nov 1994 08:49:37 GMT`, whose parts have fixed places.
    let text = httpdate::fmt_http_date(UNIX_EPOCH + since.min(latest));
    format!("{}/{}/{}:{} +0000", &text[5..7], &text[8..11], &text[12..16], &text[17..25])
}

/// As `ap_escape_logitem`.
fn escape(bytes: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    for byte in bytes {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', *byte]),
            0x08 => out.extend_from_slice(b"\\b"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0x0b => out.extend_from_slice(b"\\v"),
            b' '..=b'~' => out.push(*byte),
            other => write!(out, "\\x{other:02x}")?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn line(record: &Record<'_>, combined: bool) -> String {
        let mut out = Vec::new();
        assert!(write(record, combined, &mut out));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn lines_are_apache_s() {
        let record = Record {
            ts: 971_211_336.25,
            client: Some("127.0.0.1".parse().unwrap()),
            method: Some("GET"),
            target: Some(b"/apache_pb.gif"),
            protocol: Some("HTTP/1.0"),
            status: 200,
            bytes_out: 2326,
            referer: Some(b"http://www.example.com/start.html"),
            user_agent: Some(b"Mozilla/4.08 [en] (Win98; I ;Nav)"),
            ..Record::default()
        };
        let common = "127.0.0.1 - - [10/Oct/2000:20:55:36 +0000] \"GET /apache_pb.gif HTTP/1.0\" 200 2326";
        assert_eq!(line(&record, false), format!("{common}\n"));
        assert_eq!(
            line(&record, true),
            format!("{common} \"http://www.example.com/start.html\" \"Mozilla/4.08 [en] (Win98; I ;Nav)\"\n")
        );
    }

    #[test]
    fn what_is_missing_is_a_dash() {
        let record = Record { status: 408, ..Record::default() };
        assert_eq!(line(&record, true), "- - - [01/Jan/1970:00:00:00 +0000] \"-\" 408 - \"-\" \"-\"\n");
    }

    #[test]
    fn bytes_are_escaped_as_apache_does_it() {
        let record = Record { user_agent: Some(b"a\"b\\c\t\r\n\x08\x0b\x00\x7f\xff"), ..Record::default() };
        let expected = r#""a\"b\\c\t\r\n\b\v\x00\x7f\xff""#;
        assert!(line(&record, true).trim_end().ends_with(expected), "{}", line(&record, true));
    }

    proptest! {
        #[test]
        fn no_bytes_make_another_line_or_field(
            target in prop::collection::vec(any::<u8>(), 0..40),
            agent in prop::collection::vec(any::<u8>(), 0..40),
            ts in any::<f64>(),
        ) {
            let record = Record {
                ts,
                method: Some("GET"),
                target: Some(&target),
                protocol: Some("HTTP/1.1"),
                user_agent: Some(&agent),
                ..Record::default()
            };
            let line = line(&record, true);
            prop_assert_eq!(line.matches('\n').count(), 1);
            // Quotes that no backslash stands before: three fields.
            let (mut quotes, mut escaped) = (0, false);
            for character in line.chars() {
                quotes += usize::from(character == '"' && !escaped);
                escaped = character == '\\' && !escaped;
            }
            prop_assert_eq!(quotes, 6, "{}", line);
        }
    }
}
