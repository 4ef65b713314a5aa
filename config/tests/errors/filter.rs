//! Mistakes in `[route.filter]` and `host.trusted_proxies`.

use crate::{LISTENER, POOL, check};

fn no_network(text: &str) -> String {
    format!(r#"{text:?} is no address and no network such as "192.0.2.0/24" or "2001:db8::/32""#)
}

#[test]
fn networks() {
    check(
        &format!("{LISTENER}{POOL}[[route]]\npool = 'hello'\n[route.filter]\n"),
        &[
            ["", ""],
            ["allow = ['0.0.0.0/0', '::/0', '192.0.2.1', '2001:db8::1']\ndeny = []", ""],
            ["allow = []", "route[0].filter.allow: must name at least one network; leave it out for all"],
            ["deny = '10.0.0.0/8'", "route[0].filter.deny: expected an array of strings, found a string"],
            [
                "deny = ['10.0.0.1/8', 'x', '10.0.0.0/33', '']",
                &format!(
                    "route[0].filter.deny[0]: 10.0.0.1/8 is an address within a network, did you mean \"10.0.0.0/8\"?\n\
                     route[0].filter.deny[1]: {}\nroute[0].filter.deny[2]: {}\nroute[0].filter.deny[3]: {}",
                    no_network("x"),
                    no_network("10.0.0.0/33"),
                    no_network(""),
                ),
            ],
            [
                "deny = ['::ffff:10.0.0.0/104']",
                "route[0].filter.deny[0]: ::ffff:10.0.0.0/104 has IPv4 addresses written as IPv6, write them as IPv4",
            ],
        ],
    );
    check(
        LISTENER,
        &[
            ["[host]\ntrusted_proxies = ['10.0.0.0/8', '::1']", ""],
            ["[host]\ntrusted_proxies = ['lb']", &format!("host.trusted_proxies[0]: {}", no_network("lb"))],
        ],
    );
}

#[test]
fn block_lists() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("list");
    std::fs::write(&path, "192.0.2.1\n").unwrap();
    let (good, directory) = (path.display(), directory.path().display());
    let missing = format!("{directory}/missing");
    let bad = format!("{directory}/bad");
    std::fs::write(&bad, "192.0.2.1\nx\n").unwrap();
    let list = "route[0].filter.block_list";
    let regular = format!("{list}: read {:?}: not a regular file", directory.to_string());
    check(
        &format!("{LISTENER}{POOL}[[route]]\npool = 'hello'\n[route.filter]\n"),
        &[
            [&format!("block_list = '{good}'"), ""],
            ["block_list = 5", &format!("{list}: expected a string, found an integer")],
            ["block_list = ''", &format!("{list}: must not be empty")],
            [&format!("block_list = '{directory}'"), &regular],
            [
                &format!("block_list = '{missing}'"),
                &format!("{list}: read {missing:?}: No such file or directory (os error 2)"),
            ],
            [&format!("block_list = '{bad}'"), &format!("{list}: {bad:?}: line 2: {}", no_network("x"))],
        ],
    );
}

#[test]
fn limits() {
    check(
        &format!("{LISTENER}{POOL}[[route]]\npool = 'hello'\n[route.filter]\n"),
        &[
            ["max_body = '0B'\nmax_header = '1KiB'\nmax_in_flight_per_client = 1", ""],
            ["max_header = '32KiB'", ""],
            [
                "max_body = 5",
                r#"route[0].filter.max_body: expected a size such as "16MiB", found an integer; units are B, KB, MB, GB, TB, KiB, MiB, GiB, TiB"#,
            ],
            ["max_header = '1023B'", "route[0].filter.max_header: must be from 1KiB to 32KiB, is 1023B"],
            ["max_header = '33KiB'", "route[0].filter.max_header: must be from 1KiB to 32KiB, is 33KiB"],
            [
                "max_in_flight_per_client = 0",
                "route[0].filter.max_in_flight_per_client: must be from 1 to 1000000, is 0",
            ],
        ],
    );
}

#[test]
fn time() {
    let filter = "route[0].filter";
    check(
        &format!("{LISTENER}{POOL}[[route]]\npool = 'hello'\n[route.filter]\n"),
        &[
            ["timeout = '30s'\nbody_timeout = '1s'\nmin_body_rate = '0B'\nwrite_timeout = '1ms'", ""],
            ["tunnel_idle_timeout = '8760h'", ""],
            ["timeout = '0s'", &format!("{filter}.timeout: must be longer than zero")],
            ["body_timeout = '0s'", &format!("{filter}.body_timeout: must be longer than zero")],
            [
                "write_timeout = 5",
                &format!(
                    "{filter}.write_timeout: expected a duration such as \"30s\", found an integer; units are ms, s, m, h"
                ),
            ],
            [
                "tunnel_idle_timeout = '8761h'",
                &format!("{filter}.tunnel_idle_timeout: must not be longer than 8760h"),
            ],
            [
                "min_body_rate = 500",
                &format!(
                    "{filter}.min_body_rate: expected a size such as \"16MiB\", found an integer; units are B, KB, MB, GB, TB, KiB, MiB, GiB, TiB"
                ),
            ],
        ],
    );
}

#[test]
fn header_edits() {
    let filter = "route[0].filter";
    let framing = "frames messages or is for one hop only, and is weir's to set";
    let large = format!("set_request_headers = {{ x-a = '{}' }}", "x".repeat(4090));
    check(
        &format!("{LISTENER}{POOL}[[route]]\npool = 'hello'\n[route.filter]\n"),
        &[
            ["set_request_headers = { x-via = 'weir' }\nremove_response_headers = ['server']", ""],
            ["add_response_headers = { vary = 'x' }\nset_response_headers = { vary = 'y' }", ""],
            [
                "set_request_headers = { transfer-encoding = 'x' }",
                &format!("{filter}.set_request_headers.transfer-encoding: {framing}"),
            ],
            [
                "remove_request_headers = ['x', 'content-length', 'host']",
                &format!(
                    "{filter}.remove_request_headers[1]: {framing}\n{filter}.remove_request_headers[2]: {framing}"
                ),
            ],
            [
                "remove_request_headers = ['X-A']",
                &format!(
                    "{filter}.remove_request_headers[0]: names of header fields are written in lower case"
                ),
            ],
            [
                "remove_response_headers = ['x']\nadd_response_headers = { x = 'y' }",
                &format!(r#"{filter}.remove_response_headers: "x" is set or added, too"#),
            ],
            [&large, &format!("{filter}: sets and adds 4097 bytes of header, must be at most 4096")],
        ],
    );
    check(
        &format!("{LISTENER}[[route]]\nrespond = {{}}\n[route.filter]\n"),
        &[
            ["set_response_headers = { x = 'y' }", ""],
            [
                "set_request_headers = { x = 'y' }",
                &format!("{filter}: a route with respond sends no request whose header could be changed"),
            ],
        ],
    );
}

#[test]
fn cors() {
    let cors = "route[0].cors";
    let no_origin = |text: &str| {
        format!(r#"{text:?} is no origin such as "https://app.example" or "http://localhost:3000""#)
    };
    check(
        &format!("{LISTENER}{POOL}[[route]]\npool = 'hello'\n[route.cors]\n"),
        &[
            ["origins = ['*']", ""],
            [
                "origins = ['https://a.example', 'http://localhost:3000', 'http://[::1]:1']\ncredentials = true",
                "",
            ],
            ["", &format!("{cors}.origins: required key is missing")],
            ["origins = []", &format!("{cors}.origins: must name at least one origin")],
            ["origins = ['*', 'https://a']", &format!("{cors}.origins: has \"*\" and others, which is any")],
            [
                "origins = ['*']\ncredentials = true",
                &format!("{cors}.credentials: needs origins that are named, not \"*\""),
            ],
            [
                "origins = ['https://a:443']",
                &format!(
                    r#"{cors}.origins[0]: "https://a:443" has its scheme's own port, which browsers leave out"#
                ),
            ],
            [
                "origins = ['*']\nmethods = []",
                &format!("{cors}.methods: must name at least one method; leave it out for all"),
            ],
            [
                "origins = ['*']\nheaders = ['x y']",
                &format!(r#"{cors}.headers[0]: "x y" is no name of a header field"#),
            ],
        ],
    );
    for text in [
        "a.example",
        "https://A.example",
        "https://a/",
        "ftp://a",
        "https://",
        "null",
        "https://a:x",
        "https://a b",
    ] {
        check(
            &format!("{LISTENER}{POOL}[[route]]\npool = 'hello'\n[route.cors]\n"),
            &[[&format!("origins = ['{text}']"), &format!("{cors}.origins[0]: {}", no_origin(text))]],
        );
    }
}
