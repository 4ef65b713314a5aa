//! The path that a VM gets instead of the client's.
//!
//! A route is chosen by a path's comparable form (see [`crate::target`]), so that is what is rewritten, too: whatever
//! spelling found the route has its prefix replaced. Of what follows a prefix the client's own spelling stays.

use std::borrow::Cow;

use pingora::http::RequestHeader;
use pingora::{Error, ErrorType};
use regex::bytes::Regex;
use weir_config::model::Rewrite;

use crate::request::header_fits;
use crate::target;

/// A rewrite, ready for use.
#[derive(Debug)]
pub(super) enum PathRewrite {
    Prefix {
        /// Length of the route's path in its comparable form, without the slash at its end.
        length: usize,
        /// Without the slash at its end.
        new: Box<[u8]>,
    },
    Pattern {
        regex: Regex,
        to: Box<[u8]>,
    },
}

impl PathRewrite {
    pub(super) fn new(rewrite: &Rewrite, route: &str) -> Self {
        match rewrite {
            Rewrite::Prefix(new) => {
                let path = target::path(route.as_bytes()).unwrap_or(Cow::Borrowed(b"/"));
                Self::Prefix {
                    length: path.strip_suffix(b"/").unwrap_or(&path).len(),
                    new: new.strip_suffix('/').unwrap_or(new).as_bytes().into(),
                }
            }
            Rewrite::Pattern { pattern, to } => {
                Self::Pattern { regex: pattern.regex().clone(), to: to.as_bytes().into() }
            }
        }
    }

    /// Rewrites the path of a request in origin form.
    pub(super) fn apply(&self, request: &mut RequestHeader) -> pingora::Result<()> {
        let target = request.raw_path();
        let query_at = target.iter().position(|byte| *byte == b'?').unwrap_or(target.len());
        let (path, query) = target.split_at(query_at);
        let Some(mut rewritten) = self.path(path) else { return Ok(()) };
        // Parts of a path may make dot segments together that they were not by themselves.
        if target::path(&rewritten).is_err() {
            return Error::e_explain(ErrorType::InvalidHTTPHeader, "rewritten path is none")
                .map_err(Error::into_down);
        }
        rewritten.extend_from_slice(query);
        request.set_raw_path(&rewritten)?;
        if !header_fits(request) {
            return Error::e_explain(ErrorType::InvalidHTTPHeader, "rewritten path is too long")
                .map_err(Error::into_down);
        }
        Ok(())
    }

    /// The new path; `None`: it stays.
    fn path(&self, path: &[u8]) -> Option<Vec<u8>> {
        match self {
            Self::Prefix { length, new } => {
                let (slash, rest) = target::behind(path, *length);
                let slash: &[u8] = if slash || new.is_empty() { b"/" } else { b"" };
                Some([&new[..], slash, rest].concat())
            }
            Self::Pattern { regex, to } => {
                let path = target::path(path).ok()?;
                match regex.replace(&path, &to[..]) {
                    Cow::Owned(rewritten) => {
                        let mut escaped = Vec::with_capacity(rewritten.len());
                        escape_decoded_into(&mut escaped, &rewritten);
                        Some(escaped)
                    }
                    Cow::Borrowed(_) => None,
                }
            }
        }
    }
}

/// Appends a part of a path or query as a client wrote it, with what may not be in a URI (RFC 3986 §2) escaped.
pub(super) fn escape_into(out: &mut Vec<u8>, text: &[u8]) {
    escape(out, text, b"-._~!$&'()*+,;=:@/?%");
}

/// Appends a path whose escapes were decoded.
fn escape_decoded_into(out: &mut Vec<u8>, path: &[u8]) {
    escape(out, path, b"-._~!$&'()*+,;=:@/");
}

fn escape(out: &mut Vec<u8>, text: &[u8], kept: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    for byte in text {
        if byte.is_ascii_alphanumeric() || kept.contains(byte) {
            out.push(*byte);
        } else {
            out.extend_from_slice(&[b'%', DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rewrite(route: &str, keys: &str) -> PathRewrite {
        let text = format!(
            "[[listener]]\naddress = '127.0.0.1:0'\n[pool.p]\nimage = 'hello'\n\
             [[route]]\npool = 'p'\npath = '{route}'\nrewrite = {{ {keys} }}\n"
        );
        let config = weir_config::parse(&text, "t").unwrap_or_else(|errors| panic!("{errors}"));
        let route = &config.routes[0];
        PathRewrite::new(route.rewrite.as_ref().unwrap(), &route.path)
    }

    fn rewritten(rewrite: &PathRewrite, target: &[u8]) -> pingora::Result<String> {
        let mut request = RequestHeader::build("GET", target, None)?;
        rewrite.apply(&mut request)?;
        Ok(String::from_utf8_lossy(request.raw_path()).into_owned())
    }

    #[test]
    fn a_prefix_is_replaced_however_it_is_spelt() {
        for (route, new, target, expected) in [
            ("/api", "/v2", "/api", "/v2"),
            ("/api", "/v2", "/api/", "/v2/"),
            ("/api", "/v2", "/api/x?y=/api", "/v2/x?y=/api"),
            ("/api", "/", "/api", "/"),
            ("/api", "/", "/api?q", "/?q"),
            ("/api", "/", "/api/x", "/x"),
            ("/", "/v2", "/", "/v2/"),
            ("/", "/v2", "/x", "/v2/x"),
            ("/api", "/v2/", "//%61pi//%2Fx%20y", "/v2/x%20y"),
            ("/api", "/v2", "\\api\\x", "/v2/x"),
            ("/%C3%B6", "/o", "/%c3%b6/x", "/o/x"),
        ] {
            let target = if target.starts_with('\\') { format!("/{target}") } else { target.to_owned() };
            let rewrite = rewrite(route, &format!("prefix = '{new}'"));
            assert_eq!(rewritten(&rewrite, target.as_bytes()).unwrap(), expected, "{route} {new} {target}");
        }
    }

    #[test]
    fn an_expression_replaces_what_it_matches() {
        for (keys, target, expected) in [
            ("regex = '^/user/([0-9]+)$', to = '/u/$1'", "/user/17?a", "/u/17?a"),
            ("regex = '^/user/([0-9]+)$', to = '/u/$1'", "/user/x", "/user/x"),
            ("regex = '^/(?<a>[^/]+)/(.*)$', to = '/$2/${a}s'", "/x/y", "/y/xs"),
            ("regex = '^/a b/(.*)', to = '/$1'", "/a%20b/%C3%B6%25", "/%C3%B6%25"),
            ("regex = '^/x$', to = '/$$1'", "/x", "/$1"),
        ] {
            assert_eq!(
                rewritten(&rewrite("/", keys), target.as_bytes()).unwrap(),
                expected,
                "{keys} {target}"
            );
        }
        let together = rewrite("/", "regex = '^/(.)x(.)$', to = '/$1$2'");
        assert!(rewritten(&together, b"/.x.").is_err());
    }

    proptest! {
        // A VM never gets less checked a path than without a rewrite, and always below the new prefix.
        #[test]
        fn no_target_leaves_the_new_prefix(rest in "(/|//|%2[fF]|%5c|\\\\|[a-c.]|%2e|%61|[?#]){0,12}") {
            let target = format!("/a{rest}");
            let Ok(comparable) = target::path(target.as_bytes()) else { return Ok(()) };
            prop_assume!(comparable.len() == 2 || comparable[2] == b'/');
            let path = rewrite("/a", "prefix = '/new'").path(target.split('?').next().unwrap().as_bytes()).unwrap();
            let expected = [b"/new", &comparable[2..]].concat();
            let found = target::path(&path);
            prop_assert_eq!(found.as_deref(), Ok(&expected[..]));
        }
    }
}
