//! A route's path in normal form, so that two ways to write one path are seen to be the same; and the path of a
//! request that weir makes itself, which is sent as it is written.
//!
//! Requests are compared with routes after one decoding of their paths (by the proxy), so the normal form is such that
//! two routes that the same request would match have one: what may stand for itself does, and an encoded character that
//! a request's path can never have is refused.

/// Characters besides letters and digits that stand for themselves wherever they are (RFC 3986, unreserved).
const UNRESERVED: &[u8] = b"-._~";
/// Characters that may be in a segment as they are (RFC 3986, sub-delims, `:` and `@`).
const IN_SEGMENT: &[u8] = b"!$&'()*+,;=:@";

/// The first two are separators in a request's path, and with the last it is refused.
const NEVER_REQUESTED: [&str; 3] = ["%2F", "%5C", "%00"];

/// Brings a path prefix into the normal form of RFC 3986 §6.2.2, where more is decoded than there: no needless
/// percent-encoding, and what is needed in upper case. The slash at the end goes, too: a prefix matches whole segments
/// with or without it.
pub(crate) fn normalize(text: &str) -> Result<String, String> {
    let Some(relative) = text.strip_prefix('/') else {
        return Err(format!(r#"must start with "/", is {text:?}"#));
    };
    if relative.contains(['?', '#']) {
        return Err(format!("{text:?} has a query or a fragment, routes match paths only"));
    }
    let mut path = String::with_capacity(text.len());
    let relative = relative.strip_suffix('/').unwrap_or(relative);
    if relative.is_empty() && text.len() > 1 {
        return Err(format!("{text:?} has an empty segment"));
    }
    for segment in relative.split('/') {
        let segment = normalize_segment(segment).ok_or_else(|| {
            format!("{text:?} has a character that must be percent-encoded, or is encoded wrongly")
        })?;
        if NEVER_REQUESTED.iter().any(|encoded| segment.contains(encoded)) {
            return Err(format!(
                r#"{text:?} has an encoded "/", "\" or zero byte, which matches no request"#
            ));
        }
        match segment.as_str() {
            "" if !relative.is_empty() => return Err(format!("{text:?} has an empty segment")),
            "." | ".." => return Err(format!("{text:?} has a dot segment")),
            _ => {
                path.push('/');
                path.push_str(&segment);
            }
        }
    }
    Ok(path)
}

/// Longest target of a request, bytes: servers take at least this much (RFC 9112 §3).
const LONGEST_TARGET: usize = 2048;

/// Holds `text` against RFC 9112's origin-form: an absolute path with or without a query. It goes into a request line,
/// so what would end that line, or begin another part of it, is refused with all else that no URI has.
pub(crate) fn check_target(text: &str) -> Result<(), String> {
    if !text.starts_with('/') {
        return Err(format!(r#"must start with "/", is {text:?}"#));
    }
    if text.len() > LONGEST_TARGET {
        return Err(format!("must not be longer than {LONGEST_TARGET} bytes, is {}", text.len()));
    }
    if text.contains('#') {
        return Err(format!("{text:?} has a fragment, which is no part of a request"));
    }
    let (path, query) = text.split_once('?').unwrap_or((text, ""));
    let valid = |part: &str, separators: &str| {
        part.split(|c| separators.contains(c)).all(|piece| normalize_segment(piece).is_some())
    };
    if valid(path, "/") && valid(query, "/?") {
        return Ok(());
    }
    Err(format!("{text:?} has a character that must be percent-encoded, or is encoded wrongly"))
}

/// `None`: a character that may not be in a path, or a `%` without two hexadecimal digits.
fn normalize_segment(segment: &str) -> Option<String> {
    let mut normal = String::with_capacity(segment.len());
    let mut rest = segment.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let decoded = hex(rest.next()?)? << 4 | hex(rest.next()?)?;
            if stands_for_itself(decoded) {
                normal.push(char::from(decoded));
            } else {
                normal.push_str(&format!("%{decoded:02X}"));
            }
        } else if stands_for_itself(byte) {
            normal.push(char::from(byte));
        } else {
            return None;
        }
    }
    Some(normal)
}

fn stands_for_itself(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || UNRESERVED.contains(&byte) || IN_SEGMENT.contains(&byte)
}

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_same_path_has_one_form() {
        for (text, normal) in [
            ("/", "/"),
            ("/api", "/api"),
            ("/api/", "/api"),
            ("/a%62c", "/abc"),
            ("/%7euser", "/~user"),
            ("/%c3%b6", "/%C3%B6"),
            ("/a%21%3d%25", "/a!=%25"),
            ("/a;v=1/b:c@d", "/a;v=1/b:c@d"),
            ("/...", "/..."),
        ] {
            assert_eq!(normalize(text).as_deref(), Ok(normal), "{text}");
        }
    }

    #[test]
    fn each_mistake_has_its_message() {
        let encoding = "has a character that must be percent-encoded, or is encoded wrongly";
        for (text, message) in [
            ("", r#"must start with "/", is """#.to_owned()),
            ("api", r#"must start with "/", is "api""#.to_owned()),
            ("/a?b", r#""/a?b" has a query or a fragment, routes match paths only"#.to_owned()),
            ("/a#b", r#""/a#b" has a query or a fragment, routes match paths only"#.to_owned()),
            ("//", r#""//" has an empty segment"#.to_owned()),
            ("/a//b", r#""/a//b" has an empty segment"#.to_owned()),
            ("/a//", r#""/a//" has an empty segment"#.to_owned()),
            ("/.", r#""/." has a dot segment"#.to_owned()),
            ("/a/../b", r#""/a/../b" has a dot segment"#.to_owned()),
            ("/a/%2E%2e/", r#""/a/%2E%2e/" has a dot segment"#.to_owned()),
            (
                "/a%2fb",
                r#""/a%2fb" has an encoded "/", "\" or zero byte, which matches no request"#.to_owned(),
            ),
            ("/%5c", r#""/%5c" has an encoded "/", "\" or zero byte, which matches no request"#.to_owned()),
            ("/%00", r#""/%00" has an encoded "/", "\" or zero byte, which matches no request"#.to_owned()),
            ("/a b", format!(r#""/a b" {encoding}"#)),
            ("/ö", format!(r#""/ö" {encoding}"#)),
            ("/a%", format!(r#""/a%" {encoding}"#)),
            ("/a%2", format!(r#""/a%2" {encoding}"#)),
            ("/a%zz", format!(r#""/a%zz" {encoding}"#)),
            ("/a%2/b", format!(r#""/a%2/b" {encoding}"#)),
            ("/a\\b", format!(r#""/a\\b" {encoding}"#)),
        ] {
            assert_eq!(normalize(text), Err(message), "{text}");
        }
    }

    #[test]
    fn targets_are_what_a_request_line_takes() {
        let encoding = "has a character that must be percent-encoded, or is encoded wrongly";
        let long = format!("/{}", "x".repeat(2048));
        for valid in [
            "/",
            "/healthz",
            "/a//b/../c/",
            "/%2f%00",
            "/h?full=1&x=/?",
            "/?",
            &long[1..].replacen('x', "/", 1),
        ] {
            assert_eq!(check_target(valid), Ok(()), "{valid}");
        }
        for (text, message) in [
            ("", r#"must start with "/", is """#.to_owned()),
            ("healthz", r#"must start with "/", is "healthz""#.to_owned()),
            ("http://a/", r#"must start with "/", is "http://a/""#.to_owned()),
            ("/a#b", r#""/a#b" has a fragment, which is no part of a request"#.to_owned()),
            ("/ HTTP/1.1\r\nx: y", format!(r#""/ HTTP/1.1\r\nx: y" {encoding}"#)),
            ("/a?b c", format!(r#""/a?b c" {encoding}"#)),
            ("/ö", format!(r#""/ö" {encoding}"#)),
            ("/%4", format!(r#""/%4" {encoding}"#)),
            (&long, "must not be longer than 2048 bytes, is 2049".to_owned()),
        ] {
            assert_eq!(check_target(text), Err(message), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_target_ends_its_line(text in "/([a-c.%0-9A-Fa-f~/?\\r\\n ]{0,12}|\\PC{0,8})") {
            if check_target(&text).is_ok() {
                prop_assert!(text.bytes().all(|byte| byte.is_ascii_graphic()));
            }
        }

        #[test]
        fn normal_form_is_stable(text in "/([a-c.%0-9A-Fa-f~/]{0,12}|\\PC{0,8})") {
            if let Ok(normal) = normalize(&text) {
                prop_assert_eq!(normalize(&normal), Ok(normal.clone()));
                prop_assert!(normal == "/" || !normal.ends_with('/'));
            }
        }
    }
}
