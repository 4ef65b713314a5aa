//! Mistakes in how a route copes with pools that do not serve it.

use crate::{LISTENER, POOL, check};

/// A second pool.
const OTHER: &str = "[pool.other]\nimage = 'hello'\n";

#[test]
fn shares() {
    let zero = "at least one pool needs a weight that is not 0";
    check(
        &format!("{LISTENER}{POOL}{OTHER}[[route]]\n"),
        &[
            ["pools = [{ pool = 'hello', weight = 95 }, { pool = 'other', weight = 0 }]", ""],
            ["pools = []", "route[0].pool: required key is missing"],
            ["pools = 'hello'", "route[0].pools: expected tables [[pools]], found a string"],
            ["pools = ['hello']", "route[0].pools[0]: expected a table, found a string"],
            ["pools = [{ pool = 'hello' }]", "route[0].pools[0].weight: required key is missing"],
            ["pools = [{ weight = 1 }]", "route[0].pools[0].pool: required key is missing"],
            ["pools = [{ pool = 'hello', weight = 0 }]", &format!("route[0].pools[0]: {zero}")],
            [
                "pools = [{ pool = 'hello', weight = 10001 }]",
                "route[0].pools[0].weight: must be from 0 to 10000, is 10001",
            ],
            [
                "pools = [{ pool = 'hello', weight = -1 }]",
                "route[0].pools[0].weight: must be from 0 to 10000, is -1",
            ],
            [
                "pools = [{ pool = 'helo', weight = 1 }]",
                r#"route[0].pools[0].pool: no pool is named "helo", did you mean "hello"?"#,
            ],
            [
                "pools = [{ pool = 'hello', weight = 1 }, { pool = 'hello', weight = 2 }]",
                r#"route[0].pools[1].pool: names "hello" again"#,
            ],
            [
                "pool = 'hello'\npools = [{ pool = 'other', weight = 1 }]",
                "route[0].pools[0]: a route has one of pool, pools, respond and redirect, this one has pool and pools",
            ],
        ],
    );
}

#[test]
fn pages() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let file = |name: &str, text: &[u8]| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).expect("write");
        path.to_str().expect("UTF-8").to_owned()
    };
    let good = file("good.HTML", b"x");
    let (large, binary) = (file("large.txt", &vec![b'x'; 262_145]), file("page.exe", b"x"));
    let ends = ".html, .htm, .txt, .json, .xml, .svg";
    let no_status =
        |name: &str| format!("{name:?} is neither a status from 400 to 599 nor \"4xx\" or \"5xx\"");
    check(
        &format!("{LISTENER}{POOL}"),
        &[
            [&format!("[error_pages]\n404 = '{good}'\n5xx = '{good}'"), ""],
            [&format!("[error_pages]\n399 = '{good}'"), &format!("error_pages.399: {}", no_status("399"))],
            [&format!("[error_pages]\n600 = '{good}'"), &format!("error_pages.600: {}", no_status("600"))],
            [
                &format!("[error_pages]\n'+50' = '{good}'"),
                &format!("error_pages.\"+50\": {}", no_status("+50")),
            ],
            [&format!("[error_pages]\n3xx = '{good}'"), &format!("error_pages.3xx: {}", no_status("3xx"))],
            ["[[error_pages]]", "error_pages: expected a table of strings, found an array"],
            [
                &format!("[error_pages]\n404 = '{binary}'"),
                &format!("error_pages.404: {binary:?} does not end in one of {ends}"),
            ],
            [
                &format!("[error_pages]\n404 = '{large}'"),
                &format!("error_pages.404: read {large:?}: larger than 256KiB"),
            ],
            [
                "[error_pages]\n404 = '/dev/null.txt/x.txt'",
                "error_pages.404: read \"/dev/null.txt/x.txt\": No such file or directory (os error 2)",
            ],
        ],
    );
    check(
        &format!("{LISTENER}{POOL}[[route]]\npool = 'hello'\n"),
        &[
            ["maintenance = true", ""],
            ["maintenance = false", ""],
            ["maintenance = {}", ""],
            ["maintenance = 3", "route[0].maintenance: expected a table, found an integer"],
            ["maintenance.status = 302", "route[0].maintenance.status: must be from 400 to 599, is 302"],
            [
                "maintenance.allow = ['x']",
                r#"route[0].maintenance.allow[0]: "x" is no address and no network such as "192.0.2.0/24" or "2001:db8::/32""#,
            ],
            [
                "intercept_errors = true",
                "route[0].intercept_errors: needs error_pages, the route's or those of all routes",
            ],
            [&format!("intercept_errors = true\nerror_pages.5xx = '{good}'"), ""],
        ],
    );
}

#[test]
fn fallbacks() {
    check(
        &format!("{LISTENER}{POOL}{OTHER}[[route]]\n"),
        &[
            ["pool = 'hello'\nfallback = 'other'", ""],
            ["pool = 'hello'\nfallback = 3", "route[0].fallback: expected a string, found an integer"],
            [
                "pool = 'hello'\nfallback = 'othr'",
                r#"route[0].fallback: no pool is named "othr", did you mean "other"?"#,
            ],
            ["pool = 'hello'\nfallback = 'hello'", "route[0].fallback: is one of the route's own pools"],
            [
                "pools = [{ pool = 'hello', weight = 1 }]\nfallback = 'hello'",
                "route[0].fallback: is one of the route's own pools",
            ],
            ["respond = {}\nfallback = 'other'", "route[0].fallback: a route with respond has no fallback"],
        ],
    );
}

#[test]
fn breakers() {
    check(
        &format!("{LISTENER}{POOL}[pool.hello.breaker]\n"),
        &[
            ["", ""],
            ["failures = 0", "pool.hello.breaker.failures: must be from 1 to 10000, is 0"],
            ["ratio = 1.1", "pool.hello.breaker.ratio: must be from 0 to 1, is 1.1"],
            ["window = '0s'", "pool.hello.breaker.window: must be longer than zero"],
            ["half_open = 1001", "pool.hello.breaker.half_open: must be from 1 to 1000, is 1001"],
            ["max_in_flight = 0", "pool.hello.breaker.max_in_flight: must be from 1 to 1000000, is 0"],
            ["server_errors = 'yes'", "pool.hello.breaker.server_errors: expected a boolean, found a string"],
            ["max_pending = 3", "pool.hello.breaker.max_pending: unknown key"],
        ],
    );
}

#[test]
fn affinities() {
    let either = "route[0].affinity: needs either cookie or hash";
    let token = |name: &str| format!("{name:?} is no name of a cookie, 1 to 64 characters of a token");
    let isolated = "[pool.tenants]\nimage = 'hello'\nisolation = 'connection'\n";
    check(
        &format!("{LISTENER}{POOL}{isolated}[[route]]\n"),
        &[
            ["pool = 'hello'\naffinity = { cookie = 'weir' }", ""],
            ["pool = 'hello'\naffinity = { cookie = 'weir', max_age = '1h' }", ""],
            ["pool = 'hello'\naffinity = { hash = 'client' }", ""],
            ["pool = 'hello'\naffinity = { hash = 'header:x-user' }", ""],
            ["pool = 'hello'\naffinity = { hash = 'cookie:sid' }", ""],
            ["pool = 'hello'\naffinity = {}", either],
            ["pool = 'hello'\naffinity = { cookie = 'a', hash = 'client' }", either],
            ["pool = 'hello'\naffinity = 'a'", "route[0].affinity: expected a table, found a string"],
            [
                "pool = 'hello'\naffinity = { cookie = 'a;b' }",
                &format!("route[0].affinity.cookie: {}", token("a;b")),
            ],
            [
                "pool = 'hello'\naffinity = { cookie = '' }",
                &format!("route[0].affinity.cookie: {}", token("")),
            ],
            [
                "pool = 'hello'\naffinity = { hash = 'cookie:a=b' }",
                &format!("route[0].affinity.hash: {}", token("a=b")),
            ],
            [
                "pool = 'hello'\naffinity = { cookie = '__Host-a' }",
                "route[0].affinity.cookie: \"__Host-a\" has a prefix that binds the cookie to attributes it may lack",
            ],
            [
                "pool = 'hello'\naffinity = { hash = 'header:a b' }",
                "route[0].affinity.hash: \"a b\" is no name of a header field",
            ],
            [
                "pool = 'hello'\naffinity = { hash = 'user' }",
                "route[0].affinity.hash: must be \"client\", \"header:NAME\" or \"cookie:NAME\", is \"user\"",
            ],
            [
                "pool = 'hello'\naffinity = { hash = 'client', max_age = '1h' }",
                "route[0].affinity.max_age: only a cookie of weir's has an age",
            ],
            [
                "pool = 'hello'\naffinity = { cookie = 'a', max_age = '1500ms' }",
                "route[0].affinity.max_age: must be in whole seconds, at least one",
            ],
            [
                "respond = {}\naffinity = { hash = 'client' }",
                "route[0].affinity: a route with respond has no affinity",
            ],
            [
                "pool = 'hello'\nfallback = 'tenants'\naffinity = { hash = 'client' }",
                "route[0].affinity: pool \"tenants\" has isolation = \"connection\": its VMs are nobody's to come back to",
            ],
        ],
    );
}
