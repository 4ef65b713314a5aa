//! `rules`: what 1,000 rules cost a request, and what the choice among 10,000 routes does.
//!
//! Rules of several kinds by turns, as a list of what is not wanted has them. Requests that meet none, which have to be
//! held against all, and such that meet the last one of a kind.

use std::hint::black_box;
use std::net::IpAddr;
use std::time::Instant;

use http::HeaderMap;
use pingora::http::RequestHeader;
use prometheus::IntCounter;
use weir_config::model::{HostPattern, Rule};
use weir_proxy::Router;
use weir_proxy::rules::{Facts, Rules};

const RULES: usize = 1000;
const ROUTES: usize = 10_000;
const ROUNDS: usize = 15;
const OPERATIONS: u32 = 20_000;

fn main() {
    let rules = Rules::new(&configured(), IntCounter::new("errors", "errors").expect("a name"));
    for (what, target, agent, client) in [
        ("none holds", "/shop/items/4711?page=2", "Mozilla/5.0 (X11; Linux x86_64)", "192.0.2.1"),
        ("a path is refused", "/old/995/x", "Mozilla/5.0 (X11; Linux x86_64)", "192.0.2.1"),
        ("a network is refused", "/shop/items/4711?page=2", "Mozilla/5.0 (X11; Linux x86_64)", "10.3.228.9"),
        ("a header is refused", "/shop/items/4711?page=2", "bad-bot-997/1.0", "192.0.2.1"),
    ] {
        let mut request = RequestHeader::build("GET", target.as_bytes(), None).expect("a request");
        request.insert_header("host", "shop.example").expect("a field");
        request.insert_header("user-agent", agent).expect("a field");
        let client: IpAddr = client.parse().expect("an address");
        let refused = rules.refuse(&Facts::new(&request, Some(client), true)).is_some();
        assert_eq!(refused, what.ends_with("refused"), "{what}");
        measure(&format!("{RULES} rules, {what}"), || {
            black_box(rules.refuse(&Facts::new(black_box(&request), Some(client), true)));
        });
    }
    let hosts: Vec<_> = (0..ROUTES).map(|n| HostPattern::Exact(format!("h{}.example", n / 10))).collect();
    let paths: Vec<_> = (0..ROUTES).map(|n| format!("/service/v{}", n % 10)).collect();
    let router =
        Router::new(hosts.iter().zip(&paths).map(|(host, path)| ((host, path.as_str(), &[][..]), ())));
    let headers = HeaderMap::new();
    for (what, host, path) in [
        ("found", "h742.example", "/service/v7/items/4711"),
        ("no such path", "h742.example", "/a/b/c/d/e/f"),
        ("no such host", "other.example", "/service/v7/items/4711"),
    ] {
        measure(&format!("{ROUTES} routes, {what}"), || {
            black_box(router.find(black_box(host), black_box(path.as_bytes()), &headers));
        });
    }
}

fn configured() -> Vec<Rule> {
    let mut text = "[[listener]]\naddress = '127.0.0.1:0'\n[[route]]\nrespond = {}\n".to_owned();
    for n in 0..RULES {
        let when = match n % 5 {
            0 => format!("request.method == 'GET' && request.path.startsWith('/old/{n}/')"),
            1 => format!("ip_in(client.ip, '10.{}.{}.0/24')", n / 256, n % 256),
            2 => format!(
                "'user-agent' in request.headers && request.headers['user-agent'] == 'bad-bot-{n}/1.0'"
            ),
            3 => format!("request.path == '/admin/{n}.php' || request.path == '/wp/{n}.php'"),
            _ => format!("request.path.matches('^/files/[0-9]+/secret{n}$')"),
        };
        text += &format!("[[route.filter.rule]]\nwhen = \"{when}\"\nthen = 'deny'\n");
    }
    let config = weir_config::parse(&text, "bench").expect("a configuration");
    config.routes[0].filter.rules.clone()
}

fn measure(what: &str, operation: impl Fn()) {
    let mut nanos: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let began = Instant::now();
            (0..OPERATIONS).for_each(|_| operation());
            began.elapsed().as_nanos() as f64 / f64::from(OPERATIONS)
        })
        .collect();
    nanos.sort_by(f64::total_cmp);
    println!("rules: {what}: median {:.0} ns, least {:.0} ns", nanos[ROUNDS / 2], nanos[0]);
}
