//! What of a request decides its route: the host's name and the path, in the one spelling that routes are compared in.
//!
//! The routes' own paths are put into this spelling, too. The request itself is forwarded as it came. But two spellings of one path (`/admin`, `//admin`, `/%61dmin`,
//! `/%2Fadmin`) are likely to be one resource to the application, so they must be one to the router: otherwise a rule
//! that hangs on the route `/admin` is passed by spelling it otherwise. So, for the comparison only, escapes are
//! decoded, `\` is a `/`, and repeated slashes are one. Dot segments (`..`, `%2e`) are refused: well-behaved clients
//! resolve them before they send, and where the application resolves them, the router would have seen another path.

use std::borrow::Cow;
use std::net::Ipv6Addr;

/// Longest host name of DNS, in its textual form.
const HOST_MAX: usize = 253;

/// Why a request has no sensible route. Answered with 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// Longer than any name can be, or with characters that none has.
    #[error("malformed host")]
    Host,
    /// Not a path: `*`, an authority, an opaque URI.
    #[error("request target is no path")]
    NoPath,
    /// A `.` or `..` segment, however spelt.
    #[error("dot segment in path")]
    DotSegment,
    /// An encoded or plain zero byte.
    #[error("zero byte in path")]
    ZeroByte,
}

/// A host as routes know it, from an authority (`Host`, `:authority`, an absolute-form target): lower case, without
/// port and without the root's dot, an IPv6 address in its shortest form. An empty one stays empty.
///
/// # Errors
///
/// [`TargetError::Host`] if it can be no host.
pub fn host(authority: &[u8]) -> Result<Cow<'_, str>, TargetError> {
    let text = std::str::from_utf8(authority).map_err(|_| TargetError::Host)?;
    let name = match text.strip_prefix('[').and_then(|rest| rest.find(']')) {
        Some(end) => match &text[end + 2..] {
            port if port.is_empty() || is_port(port) => return ipv6(&text[1..=end]),
            _ => return Err(TargetError::Host),
        },
        None => match text.split_once(':') {
            Some((name, _)) if is_port(&text[name.len()..]) => name,
            Some(_) => return Err(TargetError::Host),
            None => text,
        },
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=%".contains(&byte);
    if name.len() > HOST_MAX || !name.bytes().all(legal) {
        return Err(TargetError::Host);
    }
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Ok(Cow::Owned(name.to_ascii_lowercase()));
    }
    Ok(Cow::Borrowed(name))
}

/// The brackets stay: they tell an address from a name.
fn ipv6(text: &str) -> Result<Cow<'_, str>, TargetError> {
    let address: Ipv6Addr = text.parse().map_err(|_| TargetError::Host)?;
    Ok(Cow::Owned(format!("[{address}]")))
}

fn is_port(text: &str) -> bool {
    text.strip_prefix(':').is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))
}

/// A request's path as routes are compared with it; `target` is a path with or without a query.
///
/// # Errors
///
/// Where no route can be chosen safely.
pub fn path(target: &[u8]) -> Result<Cow<'_, [u8]>, TargetError> {
    let end = target.iter().position(|byte| matches!(byte, b'?' | b'#')).unwrap_or(target.len());
    let path = &target[..end];
    if path.first() != Some(&b'/') {
        return Err(TargetError::NoPath);
    }
    let plain = |pair: &[u8]| !matches!(pair, [b'%' | b'\\' | 0, _] | [b'/', b'/' | b'.']);
    let last_is_plain = !matches!(path.last(), Some(b'%' | b'\\' | 0));
    if path.windows(2).all(plain) && last_is_plain {
        return Ok(Cow::Borrowed(path));
    }
    let decoded = decode(path);
    if decoded.contains(&0) {
        return Err(TargetError::ZeroByte);
    }
    if decoded.split(|byte| *byte == b'/').any(|segment| matches!(segment, b"." | b"..")) {
        return Err(TargetError::DotSegment);
    }
    Ok(Cow::Owned(decoded))
}

/// Escapes decoded once, backslashes turned, repeated slashes made one. What is no escape stays as it is.
fn decode(path: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((byte, tail)) = character(rest) {
        if byte != b'/' || decoded.last() != Some(&b'/') {
            decoded.push(byte);
        }
        rest = tail;
    }
    decoded
}

/// The first character of a path, decoded, and what follows it as it is.
fn character(path: &[u8]) -> Option<(u8, &[u8])> {
    let (first, tail) = path.split_first()?;
    let (byte, tail) = match (first, tail) {
        (b'%', [high, low, behind @ ..]) => match (hex(*high), hex(*low)) {
            (Some(high), Some(low)) => (high << 4 | low, behind),
            _ => (b'%', tail),
        },
        _ => (*first, tail),
    };
    Some((if byte == b'\\' { b'/' } else { byte }, tail))
}

/// What of a path, spelt as it was sent, follows the first `length` bytes of its comparable form; and whether slashes
/// were in between, which are not part of it.
pub(crate) fn behind(path: &[u8], length: usize) -> (bool, &[u8]) {
    let (mut rest, mut decoded, mut after_slash) = (path, 0, false);
    while decoded < length
        && let Some((byte, tail)) = character(rest)
    {
        let repeated = byte == b'/' && after_slash;
        decoded += usize::from(!repeated);
        after_slash = byte == b'/';
        rest = tail;
    }
    let mut slash = false;
    while let Some((b'/', tail)) = character(rest) {
        (slash, rest) = (true, tail);
    }
    (slash, rest)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn hosts_have_one_spelling() {
        for (given, expected) in [
            ("", ""),
            ("a.example", "a.example"),
            ("A.Example:8080", "a.example"),
            ("a.example.", "a.example"),
            ("a.example.:80", "a.example"),
            ("a.example:", "a.example"),
            ("127.0.0.1:1", "127.0.0.1"),
            ("[::1]:8080", "[::1]"),
            ("[::1]", "[::1]"),
            ("[2001:DB8:0:0::01]", "[2001:db8::1]"),
        ] {
            assert_eq!(host(given.as_bytes()).as_deref(), Ok(expected), "{given}");
        }
        for bad in ["a b", "a:b", "::1", "a/b", "[::1]x", "[::1]:x", "[a]", "[]", "a]", "a\0", "ä", "a@b"] {
            assert_eq!(host(bad.as_bytes()), Err(TargetError::Host), "{bad}");
        }
        assert_eq!(host(&[b'a'; 254]), Err(TargetError::Host));
        assert_eq!(host(b"\xff"), Err(TargetError::Host));
    }

    #[test]
    fn paths_have_one_spelling() {
        for (given, expected) in [
            ("/", "/"),
            ("/a/b?c=/../d", "/a/b"),
            ("/a/b/", "/a/b/"),
            ("//a///b", "/a/b"),
            ("/%61dmin", "/admin"),
            ("/%2Fadmin%2fx", "/admin/x"),
            ("/\\admin", "/admin"),
            ("/a%zz%4", "/a%zz%4"),
            ("/a%", "/a%"),
            ("/%2561", "/%61"),
            ("/.well-known/x", "/.well-known/x"),
            ("/a/..b/c..", "/a/..b/c.."),
        ] {
            assert_eq!(path(given.as_bytes()).unwrap().as_ref(), expected.as_bytes(), "{given}");
        }
        for bad in ["/..", "/a/../b", "/a/%2e%2E/b", "/a/.", "/./a", "/a%2F..%2Fb", "/a\\..\\b"] {
            assert_eq!(path(bad.as_bytes()), Err(TargetError::DotSegment), "{bad}");
        }
        for bad in ["*", "", "?a", "host:80", "a/b"] {
            assert_eq!(path(bad.as_bytes()), Err(TargetError::NoPath), "{bad}");
        }
        assert_eq!(path(b"/a%00"), Err(TargetError::ZeroByte));
        assert_eq!(path(b"/a\0"), Err(TargetError::ZeroByte));
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_strange(target in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = host(&target);
            if let Ok(path) = path(&target) {
                prop_assert!(!path.windows(2).any(|pair| pair == b"//"));
                prop_assert!(!path.contains(&0));
                prop_assert!(!path.split(|byte| *byte == b'/').any(|segment| segment == b".." || segment == b"."));
            }
        }

        // An application that decodes once and one that does not see the same route.
        #[test]
        fn escaping_any_character_changes_no_route(path in "/[a-z/]{0,12}", escape in any::<u32>()) {
            let escaped: String = path
                .bytes()
                .enumerate()
                .map(|(index, byte)| match index > 0 && escape >> index & 1 == 1 {
                    true => format!("%{byte:02x}"),
                    false => char::from(byte).to_string(),
                })
                .collect();
            prop_assert_eq!(super::path(path.as_bytes()).unwrap(), super::path(escaped.as_bytes()).unwrap());
        }
    }
}
