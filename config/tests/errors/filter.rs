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
