//! Rules, held against the same rules evaluated one by one.

use std::net::IpAddr;

use pingora::http::RequestHeader;
use proptest::prelude::*;
use weir_config::model::Rule;

use super::*;

/// Rules as a configuration has them.
fn configured(rules: &[(String, String)]) -> Vec<Rule> {
    let mut text =
        "[[listener]]\naddress = '127.0.0.1:0'\n[[route]]\nrespond = {}\n[route.filter]\n".to_owned();
    for (when, then) in rules {
        text += &format!("[[route.filter.rule]]\nwhen = '''{when}'''\nthen = {then}\n");
    }
    let config = weir_config::parse(&text, "t").unwrap_or_else(|errors| panic!("{errors}"));
    config.routes[0].filter.rules.clone()
}

fn rules(rules: &[(&str, &str)]) -> Rules {
    let rules: Vec<_> = rules.iter().map(|(when, then)| ((*when).to_owned(), (*then).to_owned())).collect();
    Rules::new(&configured(&rules), IntCounter::new("e", "e").unwrap())
}

fn request(method: &str, target: &str, fields: &[(&'static str, &str)]) -> RequestHeader {
    let mut request = RequestHeader::build(method, target.as_bytes(), None).unwrap();
    for (name, value) in fields {
        request.append_header(*name, *value).unwrap();
    }
    request
}

fn refused(rules: &Rules, request: &RequestHeader, client: &str) -> Option<u16> {
    rules.refuse(&Facts::new(request, client.parse().ok(), false)).map(|status| status.as_u16())
}

#[test]
fn what_conditions_see() {
    let agent = [("host", "A.example:8080"), ("user-agent", "Curl/8"), ("accept", "a"), ("accept", "b")];
    let request = request("GET", "/a//%62?c=%64", &agent);
    for condition in [
        "request.method == 'GET'",
        "request.path == '/a/b'",
        "request.query == 'c=%64'",
        "request.host == 'a.example'",
        "request.http_version == '1.1'",
        "client.ip == '10.1.2.3'",
        "ip_in(client.ip, '10.0.0.0/8') && !ip_in(client.ip, '10.0.0.0/16')",
        "request.headers['user-agent'].matches('(?i)^curl')",
        "request.headers.accept == 'a, b'",
        "has(request.headers.accept) && !('x' in request.headers)",
        "!request.tls",
        "size(request.path) == 4 && request.path < '/b'",
        "request.path in ['/x', '/a/b'] ? request.path.endsWith('b') : false",
    ] {
        assert_eq!(
            refused(&rules(&[(condition, "403")]), &request, "::ffff:10.1.2.3"),
            Some(403),
            "{condition}"
        );
        let negated = format!("!({condition})");
        assert_eq!(refused(&rules(&[(&negated, "403")]), &request, "10.1.2.3"), None, "{negated}");
    }
}

#[test]
fn the_first_rule_that_holds_decides() {
    let rules = rules(&[
        ("request.path.startsWith('/a/open')", "'allow'"),
        ("request.path.startsWith('/a')", "'deny'"),
        ("request.method == 'PUT'", "405"),
        ("request.path == '/a/b'", "404"),
    ]);
    for (method, target, status) in [
        ("GET", "/a/open/x", None),
        ("PUT", "/a/open/x", None),
        ("GET", "/a/b", Some(403)),
        ("PUT", "/", Some(405)),
        ("GET", "/", None),
    ] {
        assert_eq!(refused(&rules, &request(method, target, &[]), "10.0.0.1"), status, "{method} {target}");
    }
}

#[test]
fn what_cannot_be_evaluated_is_taken_for_the_safer_answer() {
    let long = format!("/{}", "a".repeat(5000));
    for (condition, target, client) in [
        ("request.headers.x == 'y'", "/", "10.0.0.1"),
        ("request.path == '/' && request.headers.x == 'y'", "/", "10.0.0.1"),
        ("ip_in(client.ip, '10.0.0.0/8')", "/", ""),
        ("ip_in(request.headers.x, '10.0.0.0/8')", "/", "10.0.0.1"),
        ("request.path.matches('^b')", &long, "10.0.0.1"),
    ] {
        let request = request("GET", target, &[]);
        let denies = rules(&[(condition, "'deny'")]);
        assert_eq!(refused(&denies, &request, client), Some(403), "{condition}");
        assert_eq!(denies.errors.get(), 1, "{condition}");
        let allows = rules(&[(condition, "'allow'"), ("true", "'deny'")]);
        assert_eq!(refused(&allows, &request, client), Some(403), "{condition}");
    }
    let guarded = rules(&[("'x' in request.headers && request.headers.x == 'y'", "'deny'")]);
    assert_eq!(refused(&guarded, &request("GET", "/", &[]), ""), None);
    assert_eq!(guarded.errors.get(), 0);
}

#[test]
fn bytes_that_are_no_utf8_hide_nothing() {
    let rules = rules(&[("request.path.contains('evil') || request.headers.x.contains('evil')", "'deny'")]);
    let mut request = RequestHeader::build("GET", b"/%ffevil", None).unwrap();
    assert_eq!(refused(&rules, &request, "10.0.0.1"), Some(403));
    request.set_raw_path(b"/").unwrap();
    request.insert_header("x", http::HeaderValue::from_bytes(b"\xffevil").unwrap()).unwrap();
    assert_eq!(refused(&rules, &request, "10.0.0.1"), Some(403));
}

/// Only rules that something speaks for are evaluated.
#[test]
fn few_rules_are_candidates() {
    let many: Vec<_> = (0..500)
        .flat_map(|n| {
            let when = |text: String| (text, "'deny'".to_owned());
            [
                when(format!("request.method == 'GET' && request.path.startsWith('/p{n:03}/')")),
                when(format!("request.host == 'h{n}.example' && request.path == '/x'")),
                when(format!("ip_in(client.ip, '10.{}.{}.0/24')", n / 250, n % 250)),
                when(format!("has(request.headers.x) && (request.headers.x == 'a{n}' || request.path.matches('z{n:03}$'))")),
            ]
        })
        .collect();
    let index = Index::new(&configured(&many));
    for (target, client, expected) in
        [("/p007/a", "10.0.3.9", &[5, 14, 28][..]), ("/z499", "::1", &[5, 1999]), ("/", "192.0.2.1", &[5])]
    {
        let fields = [("host", "h1.example"), ("x", "y")];
        let request = request("GET", target, &fields);
        let candidates = index.candidates(&Facts::new(&request, client.parse().ok(), false));
        assert_eq!(candidates, expected, "{target}");
    }
}

fn condition() -> impl Strategy<Value = String> {
    let text = "[ab]{1,2}";
    let fact = prop::sample::select(
        &["request.path", "request.query", "request.headers.x", "request.headers.y", "client.ip"][..],
    );
    let leaf = prop_oneof![
        4 => (fact.clone(), text).prop_map(|(fact, text)| format!("{fact} == '{text}'")),
        1 => (fact.clone(), text).prop_map(|(fact, text)| format!("'/{text}' != {fact}")),
        3 => (fact.clone(), "/[ab]{0,2}").prop_map(|(fact, text)| format!("{fact}.startsWith('{text}')")),
        3 => (fact.clone(), text, "/[ab]").prop_map(|(fact, a, b)| format!("{fact} in ['{a}', '{b}']")),
        3 => (fact.clone(), "\\^?/?[ab]{1,2}\\$?").prop_map(|(fact, text)| format!("{fact}.matches('{text}')")),
        3 => (fact, 0_u8..4, 28_u8..=32).prop_map(|(fact, low, prefix)| {
            let low = u32::from(low) << (32 - prefix.min(31)) & 15;
            let low = low & (u32::MAX << (32 - prefix));
            format!("ip_in({fact}, '10.0.0.{low}/{prefix}')")
        }),
        1 => Just("has(request.headers.x)".to_owned()),
        1 => Just("'y' in request.headers".to_owned()),
        1 => Just("request.tls".to_owned()),
        1 => Just("request.query.contains('a')".to_owned()),
    ];
    leaf.prop_recursive(3, 8, 2, |inner| {
        prop_oneof![
            4 => (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} && {b})")),
            3 => (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} || {b})")),
            1 => inner.clone().prop_map(|a| format!("!({a})")),
            1 => (inner.clone(), inner.clone(), inner).prop_map(|(a, b, c)| format!("({a} ? {b} : {c})")),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]
    #[test]
    fn the_index_changes_nothing(
        written in prop::collection::vec((condition(), prop::sample::select(&["'allow'", "'deny'", "404"][..])), 0..10),
        path in "/[ab]{0,3}",
        query in "[ab]{0,2}",
        x in prop::option::of("[ab]{1,2}|/[ab]|10\\.0\\.0\\.[0-9]"),
        y in prop::option::of("[ab]{1,2}|a{4097}"),
        client in prop::option::of(0_u8..16),
        tls: bool,
    ) {
        let written: Vec<_> = written.into_iter().map(|(when, then)| (when, then.to_owned())).collect();
        let rules = Rules::new(&configured(&written), IntCounter::new("e", "e").unwrap());
        let mut request = request("GET", &format!("{path}?{query}"), &[]);
        for (name, value) in [("x", x), ("y", y)] {
            if let Some(value) = value {
                request.insert_header(name, value).unwrap();
            }
        }
        let client = client.map(|low| IpAddr::from([10, 0, 0, low]));
        let facts = Facts::new(&request, client, tls);
        let naive = rules.first(0..u32::try_from(rules.rules.len()).unwrap(), &facts);
        prop_assert_eq!(rules.refuse(&facts), naive);
    }
}
