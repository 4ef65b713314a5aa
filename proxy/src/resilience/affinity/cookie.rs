//! Cookies, as far as affinity needs them (RFC 6265).

use http::{HeaderMap, HeaderValue, header};
use weir_config::model::SessionCookie;

/// Hexadecimal digits of a number in the cookie.
const DIGITS: usize = 16;

/// What goes into `set-cookie`, but for the numbers.
#[derive(Debug)]
pub(crate) struct SetCookie {
    name: String,
    /// All behind the value.
    attributes: String,
}

impl SetCookie {
    /// For a route with this path. Its cookie goes to no other path, so that two routes of a host do not take each other's.
    pub(super) fn new(cookie: &SessionCookie, path: &str) -> Self {
        // What would end the attribute, or need quoting, is left to all paths.
        let path = if path.contains([';', ',']) { "/" } else { path };
        let mut attributes = format!("; Path={path}; HttpOnly; SameSite=Lax");
        if let Some(age) = cookie.max_age {
            attributes += &format!("; Max-Age={}", age.as_secs());
        }
        Self { name: cookie.name.clone(), attributes }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// `secure`: it is never sent in plain text.
    pub(super) fn value(&self, session: u64, tag: u64, secure: bool) -> HeaderValue {
        let secure = if secure { "; Secure" } else { "" };
        let value = format!("{}={session:016x}{tag:016x}{}{secure}", self.name, self.attributes);
        HeaderValue::try_from(value).expect("a token, a path and digits make a header value")
    }
}

/// The values of the cookies of this name, in their order. Names are case-sensitive.
pub(crate) fn cookies<'a>(headers: &'a HeaderMap, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    let pairs =
        headers.get_all(header::COOKIE).iter().flat_map(|field| field.as_bytes().split(|byte| *byte == b';'));
    pairs.filter_map(move |pair| pair.trim_ascii().strip_prefix(name.as_bytes())?.strip_prefix(b"="))
}

/// Session and tag of what [`SetCookie::value`] has made; nothing else is either.
pub(super) fn parse(value: &[u8]) -> Option<(u64, u64)> {
    let is_digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    if value.len() != 2 * DIGITS || !value.iter().all(is_digit) {
        return None;
    }
    let (session, tag) = std::str::from_utf8(value).ok()?.split_at(DIGITS);
    Some((u64::from_str_radix(session, 16).ok()?, u64::from_str_radix(tag, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn cookie(max_age: Option<u64>, path: &str) -> SetCookie {
        let max_age = max_age.map(Duration::from_secs);
        SetCookie::new(&SessionCookie { name: "w".to_owned(), max_age }, path)
    }

    #[test]
    fn it_says_who_may_have_it() {
        let digits = "00000000000000010000000000000002";
        for (cookie, secure, expected) in [
            (cookie(None, "/"), false, format!("w={digits}; Path=/; HttpOnly; SameSite=Lax")),
            (cookie(None, "/a"), true, format!("w={digits}; Path=/a; HttpOnly; SameSite=Lax; Secure")),
            (
                cookie(Some(60), "/a;b"),
                false,
                format!("w={digits}; Path=/; HttpOnly; SameSite=Lax; Max-Age=60"),
            ),
        ] {
            assert_eq!(cookie.value(1, 2, secure), expected);
        }
    }

    #[test]
    fn cookies_are_found_by_their_name() {
        let mut headers = HeaderMap::new();
        for field in ["a=1; w=2;w=3 ", "ww=4; W=5; w =6; w", " w=; w=7=8"] {
            headers.append(header::COOKIE, field.parse().unwrap());
        }
        assert!(cookies(&headers, "w").eq([&b"2"[..], b"3", b"", b"7=8"]));
    }

    proptest! {
        #[test]
        fn what_was_given_comes_back(session: u64, tag: u64) {
            let value = cookie(None, "/").value(session, tag, true);
            let mut headers = HeaderMap::new();
            let pair = value.as_bytes().split(|byte| *byte == b';').next().unwrap();
            headers.append(header::COOKIE, HeaderValue::from_bytes(pair).unwrap());
            prop_assert_eq!(cookies(&headers, "w").find_map(parse), Some((session, tag)));
        }

        #[test]
        fn nothing_else_is_one(value in proptest::collection::vec(any::<u8>(), 0..40), near in "[0-9a-fA-F+]{31,33}") {
            for value in [&value[..], near.as_bytes()] {
                if let Some((session, tag)) = parse(value) {
                    let written = format!("{session:016x}{tag:016x}");
                    prop_assert_eq!(written.as_bytes(), value);
                }
            }
        }
    }
}
