//! Which route a request takes.
//!
//! A route is a predicate on host and path, and the most specific route that matches wins: an exact host before a
//! wildcard, a longer wildcard before a shorter one, any wildcard before no host at all; within the same host the
//! longest path. Where a host has no route for the path, the less specific hosts are asked: a catch-all route catches
//! all. (nginx, in contrast, stops at the most specific host.)
//!
//! Of routes with the same host and path the first whose conditions on header fields hold wins, and the one that has none is the
//! last. Where none holds, it is as if there were no route for that path.

use std::collections::HashMap;

use http::HeaderMap;
use weir_config::model::{FieldMatch, HostPattern};

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
    by_prefix: HashMap<Box<[u8]>, Alternatives<T>>,
    longest: usize,
}

/// The routes of one host and path.
#[derive(Debug)]
struct Alternatives<T> {
    /// In their order.
    conditional: Vec<(Box<[FieldMatch]>, T)>,
    plain: Option<T>,
}

/// What a route is for: a host, a path, and conditions on header fields.
pub type Predicate<'a> = (&'a HostPattern, &'a str, &'a [FieldMatch]);

impl<T> Router<T> {
    /// Paths are put into the spelling that requests are compared in, see [`crate::target`]; one that no request can
    /// have matches none. Of several routes with the same predicate the first wins.
    pub fn new<'a>(routes: impl IntoIterator<Item = (Predicate<'a>, T)>) -> Self {
        let mut router = Self { exact: HashMap::new(), suffix: HashMap::new(), any: Paths::default() };
        for ((host, path, conditions), value) in routes {
            match host {
                HostPattern::Exact(name) => router.exact.entry(name.as_str().into()).or_default(),
                HostPattern::Suffix(name) => router.suffix.entry(name.as_str().into()).or_default(),
                HostPattern::Any => &mut router.any,
            }
            .insert(path, conditions, value);
        }
        router
    }

    /// The route for a host and a path as [`crate::target`] makes them, and the request's header.
    pub fn find(&self, host: &str, path: &[u8], headers: &HeaderMap) -> Option<&T> {
        self.find_named(host, path, headers).or_else(|| self.any.find(path, headers))
    }

    fn find_named(&self, host: &str, path: &[u8], headers: &HeaderMap) -> Option<&T> {
        let exact = self.exact.get(host).and_then(|paths| paths.find(path, headers));
        exact.or_else(|| self.find_suffix(host, path, headers))
    }

    fn find_suffix(&self, host: &str, path: &[u8], headers: &HeaderMap) -> Option<&T> {
        if self.suffix.is_empty() {
            return None;
        }
        // A wildcard stands for at least one label, so the name's first byte is never the dot before the suffix.
        let dots = host.bytes().enumerate().skip(1).filter(|(_, byte)| *byte == b'.');
        dots.filter_map(|(dot, _)| self.suffix.get(&host[dot + 1..]))
            .find_map(|paths| paths.find(path, headers))
    }
}

impl<T> Default for Paths<T> {
    fn default() -> Self {
        Self { by_prefix: HashMap::new(), longest: 0 }
    }
}

impl<T> Paths<T> {
    fn insert(&mut self, path: &str, conditions: &[FieldMatch], value: T) {
        let Ok(path) = target::path(path.as_bytes()) else { return };
        let prefix = path.strip_suffix(b"/").unwrap_or(&path);
        self.longest = self.longest.max(prefix.len());
        self.by_prefix.entry(prefix.into()).or_default().insert(conditions, value);
    }

    /// The longest prefix that ends where a segment of `path` ends. Only ends up to the longest prefix there is are
    /// looked at, so that a path of a million slashes costs no more than another.
    fn find(&self, path: &[u8], headers: &HeaderMap) -> Option<&T> {
        if self.by_prefix.is_empty() {
            return None;
        }
        let longest = self.longest.min(path.len());
        let is_end = |end: &usize| *end == path.len() || path[*end] == b'/';
        (0..=longest).rev().filter(is_end).find_map(|end| self.by_prefix.get(&path[..end])?.choose(headers))
    }
}

impl<T> Default for Alternatives<T> {
    fn default() -> Self {
        Self { conditional: Vec::new(), plain: None }
    }
}

impl<T> Alternatives<T> {
    fn insert(&mut self, conditions: &[FieldMatch], value: T) {
        match conditions {
            [] => {
                self.plain.get_or_insert(value);
            }
            conditions => self.conditional.push((conditions.into(), value)),
        }
    }

    fn choose(&self, headers: &HeaderMap) -> Option<&T> {
        let holds =
            |(conditions, _): &&(Box<[FieldMatch]>, T)| conditions.iter().all(|one| one.holds(headers));
        self.conditional.iter().find(holds).map(|(_, value)| value).or(self.plain.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderName;
    use proptest::prelude::*;
    use weir_config::model::FieldValue;

    use super::*;

    fn pattern() -> impl Strategy<Value = HostPattern> {
        let name = "[ab](\\.[ab]){0,2}";
        prop_oneof![
            name.prop_map(HostPattern::Exact),
            name.prop_map(HostPattern::Suffix),
            Just(HostPattern::Any)
        ]
    }

    fn conditions() -> impl Strategy<Value = Vec<FieldMatch>> {
        let condition = ("[pq]", "[12]").prop_map(|(name, value)| FieldMatch {
            name: HeaderName::try_from(name).unwrap(),
            value: FieldValue::Is(value),
        });
        proptest::collection::vec(condition, 0..3)
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
            routes in proptest::collection::vec((pattern(), "/|(/[xy]{1,2}){1,3}/?", conditions()), 0..8),
            headers in proptest::collection::vec(("[pq]", "[12]"), 0..3),
            host in "([ab](\\.[ab]){0,3})?",
            path in "(/[xy]{1,2}){0,4}/?",
        ) {
            prop_assume!(path.starts_with('/'));
            let router = Router::new(
                routes.iter().enumerate().map(|(n, (host, path, fields))| ((host, path.as_str(), &fields[..]), n)),
            );
            let has = |field: &FieldMatch| headers.iter().any(|(name, value)| {
                *name == field.name.as_str() && field.value == FieldValue::Is(value.clone())
            });
            let mut best = None;
            for (n, (pattern, prefix, fields)) in routes.iter().enumerate() {
                let rank = rank(pattern, prefix, &host, &path).map(|rank| (rank, !fields.is_empty()));
                if rank.is_some() && fields.iter().all(has) && best.is_none_or(|(other, _)| rank > other) {
                    best = Some((rank, n));
                }
            }
            let mut map = HeaderMap::new();
            for (name, value) in &headers {
                map.append(HeaderName::try_from(name).unwrap(), value.parse().unwrap());
            }
            prop_assert_eq!(router.find(&host, path.as_bytes(), &map).copied(), best.map(|(_, n)| n));
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
            let router = Router::new([((&HostPattern::Any, normal[0].as_str(), &[][..]), ())]);
            for spelling in [&path, &normal[0]] {
                let request = target::path(spelling.as_bytes()).unwrap();
                prop_assert!(router.find("h", &request, &HeaderMap::new()).is_some(), "{normal:?}");
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
            let router = Router::new([((&HostPattern::Any, normal[0].as_str(), &[][..]), ())]);
            assert!(
                router.find("h", &target::path(request.as_bytes()).unwrap(), &HeaderMap::new()).is_some(),
                "{path}"
            );
        }
    }

    #[test]
    fn prefixes_end_at_segments() {
        let any = HostPattern::Any;
        let router = Router::new([((&any, "/api", &[][..]), "api"), ((&any, "/api/v1/", &[]), "v1")]);
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
            assert_eq!(router.find("h", path.as_bytes(), &HeaderMap::new()).copied(), route, "{path}");
        }
    }
}
