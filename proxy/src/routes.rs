//! Which route a request takes.
//!
//! A route is a predicate on host and path, and the most specific route that matches wins: an exact host before a
//! wildcard, a longer wildcard before a shorter one, any wildcard before no host at all; within the same host the
//! longest path. Where a host has no route for the path, the less specific hosts are asked: a catch-all route catches
//! all. (nginx, in contrast, stops at the most specific host.)

use std::collections::HashMap;

use weir_config::model::HostPattern;

use crate::target;

/// Routes, each with a value of type `T`, indexed for look-up. Its cost does not grow with their number.
#[derive(Debug)]
pub struct Router<T> {
    exact: HashMap<Box<str>, Paths<T>>,
    suffix: HashMap<Box<str>, Paths<T>>,
    any: Paths<T>,
}

/// The routes of one host, by path without the final slash.
#[derive(Debug)]
struct Paths<T> {
    by_prefix: HashMap<Box<[u8]>, T>,
    longest: usize,
}

impl<T> Router<T> {
    /// Paths are put into the spelling that requests are compared in, see [`crate::target`]; one that no request can
    /// have matches none. Of several routes with the same host and path the first wins.
    pub fn new<'a>(routes: impl IntoIterator<Item = (&'a HostPattern, &'a str, T)>) -> Self {
        let mut router = Self { exact: HashMap::new(), suffix: HashMap::new(), any: Paths::default() };
        for (host, path, value) in routes {
            match host {
                HostPattern::Exact(name) => router.exact.entry(name.as_str().into()).or_default(),
                HostPattern::Suffix(name) => router.suffix.entry(name.as_str().into()).or_default(),
                HostPattern::Any => &mut router.any,
            }
            .insert(path, value);
        }
        router
    }

    /// The route for a host and a path as [`crate::target`] makes them.
    pub fn find(&self, host: &str, path: &[u8]) -> Option<&T> {
        self.find_named(host, path).or_else(|| self.any.find(path))
    }

    fn find_named(&self, host: &str, path: &[u8]) -> Option<&T> {
        let exact = self.exact.get(host).and_then(|paths| paths.find(path));
        exact.or_else(|| self.find_suffix(host, path))
    }

    fn find_suffix(&self, host: &str, path: &[u8]) -> Option<&T> {
        if self.suffix.is_empty() {
            return None;
        }
        // A wildcard stands for at least one label, so the name's first byte is never the dot before the suffix.
        let dots = host.bytes().enumerate().skip(1).filter(|(_, byte)| *byte == b'.');
        dots.filter_map(|(dot, _)| self.suffix.get(&host[dot + 1..])).find_map(|paths| paths.find(path))
    }
}

impl<T> Default for Paths<T> {
    fn default() -> Self {
        Self { by_prefix: HashMap::new(), longest: 0 }
    }
}

impl<T> Paths<T> {
    fn insert(&mut self, path: &str, value: T) {
        let Ok(path) = target::path(path.as_bytes()) else { return };
        let prefix = path.strip_suffix(b"/").unwrap_or(&path);
        self.longest = self.longest.max(prefix.len());
        self.by_prefix.entry(prefix.into()).or_insert(value);
    }

    /// The longest prefix that ends where a segment of `path` ends. Only ends up to the longest prefix there is are
    /// looked at, so that a path of a million slashes costs no more than another.
    fn find(&self, path: &[u8]) -> Option<&T> {
        if self.by_prefix.is_empty() {
            return None;
        }
        let longest = self.longest.min(path.len());
        let is_end = |end: &usize| *end == path.len() || path[*end] == b'/';
        (0..=longest).rev().filter(is_end).find_map(|end| self.by_prefix.get(&path[..end]))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pattern() -> impl Strategy<Value = HostPattern> {
        let name = "[ab](\\.[ab]){0,2}";
        prop_oneof![
            name.prop_map(HostPattern::Exact),
            name.prop_map(HostPattern::Suffix),
            Just(HostPattern::Any)
        ]
    }

    /// How specific a match is, as the module's documentation says it; `None`: no match.
    fn rank(pattern: &HostPattern, prefix: &str, host: &str, path: &str) -> Option<(usize, usize, usize)> {
        let (kind, length) = match pattern {
            HostPattern::Exact(name) => (name == host).then_some((2, 0))?,
            HostPattern::Suffix(name) => {
                let rest = host.strip_suffix(name.as_str())?;
                (rest.len() > 1 && rest.ends_with('.')).then_some((1, name.len()))?
            }
            HostPattern::Any => (0, 0),
        };
        let wanted: Vec<&str> = prefix.split('/').filter(|segment| !segment.is_empty()).collect();
        let given: Vec<&str> = path.split('/').skip(1).collect();
        given.starts_with(&wanted).then_some((kind, length, wanted.len()))
    }

    proptest! {
        #[test]
        fn router_does_as_its_model(
            routes in proptest::collection::vec((pattern(), "/|(/[xy]{1,2}){1,3}/?"), 0..8),
            host in "([ab](\\.[ab]){0,3})?",
            path in "(/[xy]{1,2}){0,4}/?",
        ) {
            prop_assume!(path.starts_with('/'));
            let router = Router::new(routes.iter().enumerate().map(|(n, (host, path))| (host, path.as_str(), n)));
            let mut best = None;
            for (n, (pattern, prefix)) in routes.iter().enumerate() {
                let rank = rank(pattern, prefix, &host, &path);
                if rank.is_some() && best.is_none_or(|(other, _)| rank > other) {
                    best = Some((rank, n));
                }
            }
            prop_assert_eq!(router.find(&host, path.as_bytes()).copied(), best.map(|(_, n)| n));
        }
    }

    /// The paths of a configuration that has routes with these, if it is one.
    fn configured(paths: &[&str]) -> Option<Vec<String>> {
        let head = "[[listener]]\naddress = '127.0.0.1:0'\n[pool.p]\nimage = 'hello'\n";
        let route =
            |(n, path): (usize, &&str)| format!("[[route]]\nhost = 'h{n}'\npath = '{path}'\npool = 'p'\n");
        let text: String =
            std::iter::once(head.to_owned()).chain(paths.iter().enumerate().map(route)).collect();
        let config = weir_config::parse(&text, "t").ok()?;
        Some(config.routes.iter().map(|route| route.path.clone()).collect())
    }

    const PATH: &str = "(/([a-c.~!=]|%[0-9a-fA-F]{2}){1,3}){1,2}/?";

    proptest! {
        #[test]
        fn a_route_matches_what_is_spelt_as_in_the_configuration(path in PATH) {
            let Some(normal) = configured(&[&path]) else { return Ok(()) };
            let router = Router::new([(&HostPattern::Any, normal[0].as_str(), ())]);
            for spelling in [&path, &normal[0]] {
                let request = target::path(spelling.as_bytes()).unwrap();
                prop_assert!(router.find("h", &request).is_some(), "{normal:?}");
            }
        }

        #[test]
        fn two_routes_that_are_one_to_requests_are_one_to_the_configuration(a in PATH, b in PATH) {
            let Some(normal) = configured(&[&a, &b]) else { return Ok(()) };
            let requested = |n: usize| target::path(normal[n].as_bytes()).unwrap();
            prop_assert_eq!(normal[0] == normal[1], requested(0) == requested(1));
        }
    }

    #[test]
    fn an_encoded_path_is_found() {
        for (path, request) in
            [("/%C3%B6", "/\u{f6}/x"), ("/%c3%b6", "/%C3%b6"), ("/a%25", "/a%25"), ("/a%20b", "/a b")]
        {
            let normal = configured(&[path]).unwrap();
            let router = Router::new([(&HostPattern::Any, normal[0].as_str(), ())]);
            assert!(router.find("h", &target::path(request.as_bytes()).unwrap()).is_some(), "{path}");
        }
    }

    #[test]
    fn prefixes_end_at_segments() {
        let any = HostPattern::Any;
        let router = Router::new([(&any, "/api", "api"), (&any, "/api/v1/", "v1")]);
        for (path, route) in [
            ("/api", Some("api")),
            ("/api/", Some("api")),
            ("/api/x", Some("api")),
            ("/apix", None),
            ("/", None),
            ("/api/v1", Some("v1")),
            ("/api/v1/x", Some("v1")),
            ("/api/v10", Some("api")),
        ] {
            assert_eq!(router.find("h", path.as_bytes()).copied(), route, "{path}");
        }
    }
}
