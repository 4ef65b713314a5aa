//! A route's path in normal form, so that two ways to write one path are seen to be the same.

/// Characters besides letters and digits that stand for themselves wherever they are (RFC 3986, unreserved).
const UNRESERVED: &[u8] = b"-._~";
/// Characters that may be in a segment as they are (RFC 3986, sub-delims, `:` and `@`).
const IN_SEGMENT: &[u8] = b"!$&'()*+,;=:@";

/// Brings a path prefix into the normal form of RFC 3986 §6.2.2: no needless percent-encoding, and what is needed
/// in upper case. The slash at the end goes, too: a prefix matches whole segments with or without it.
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

/// `None`: a character that may not be in a path, or a `%` without two hexadecimal digits.
fn normalize_segment(segment: &str) -> Option<String> {
    let mut normal = String::with_capacity(segment.len());
    let mut rest = segment.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let decoded = hex(rest.next()?)? << 4 | hex(rest.next()?)?;
            if is_unreserved(decoded) {
                normal.push(char::from(decoded));
            } else {
                normal.push_str(&format!("%{decoded:02X}"));
            }
        } else if is_unreserved(byte) || IN_SEGMENT.contains(&byte) {
            normal.push(char::from(byte));
        } else {
            return None;
        }
    }
    Some(normal)
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || UNRESERVED.contains(&byte)
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
            ("/a%2fb", "/a%2Fb"),
            ("/%c3%b6", "/%C3%B6"),
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

    proptest! {
        #[test]
        fn normal_form_is_stable(text in "/([a-c.%0-9A-Fa-f~/]{0,12}|\\PC{0,8})") {
            if let Ok(normal) = normalize(&text) {
                prop_assert_eq!(normalize(&normal), Ok(normal.clone()));
                prop_assert!(normal == "/" || !normal.ends_with('/'));
            }
        }
    }
}
