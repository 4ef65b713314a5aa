//! Mistakes in `[pool.NAME]` with `kind = "external"`.

use crate::{LISTENER, POOL, check};

const SERVERS: &str = "[pool.old]\nkind = 'external'\n";

#[test]
fn addresses() {
    let no_address = |text: &str| {
        format!(
            r#"pool.old.addresses[0]: {text:?} is no address of a server, such as "127.0.0.1:3000", "[::1]:3000" or "legacy.internal:80""#
        )
    };
    let context = format!("{LISTENER}{SERVERS}");
    let long = format!("{}.example:80", "x".repeat(64));
    let longest = format!("{}x:80", "x.".repeat(127));
    for text in [
        "",
        ":80",
        "legacy",
        "legacy:",
        "legacy:0",
        "legacy:65536",
        "legacy:+80",
        "http://legacy:80",
        "a b:80",
        "-a:80",
        "a-:80",
        "a..b:80",
        ".a:80",
        "127.1:80",
        "127.0.0.256:80",
        "0x7f.1:80",
        "::1:80",
        "é:80",
        "a:80/",
        &long,
        &longest,
    ] {
        check(&context, &[[&format!("addresses = ['{text}']"), &no_address(text)]]);
    }
    check(
        &context,
        &[
            ["", "pool.old.addresses: required key is missing"],
            ["addresses = []", "pool.old.addresses: must not be empty: at least one server is needed"],
            ["addresses = 'a:80'", "pool.old.addresses: expected an array of strings, found a string"],
            ["addresses = [80]", "pool.old.addresses[0]: expected a string, found an integer"],
            ["addresses = ['0.0.0.0:80']", "pool.old.addresses[0]: 0.0.0.0 is no server's address"],
            ["addresses = ['[ff02::1]:80']", "pool.old.addresses[0]: ff02::1 is no server's address"],
            ["addresses = ['127.0.0.1:0']", r#"pool.old.addresses[0]: "127.0.0.1:0" has port 0"#],
            ["addresses = ['a:80', 'A.:80']", "pool.old.addresses: a:80 is there twice"],
            [
                "addresses = ['[::1]:80', '127.0.0.1:3000', 'legacy_2.internal:80', 'a:80', 'a:81', '1.a:80']",
                "",
            ],
        ],
    );
    let many = |count: usize| {
        let all: Vec<_> = (1..=count).map(|port| format!("'a:{port}'")).collect();
        format!("addresses = [{}]", all.join(","))
    };
    let message = "pool.old.addresses: must have at most 1024 addresses, has 1025";
    check(&context, &[[&many(1024), ""], [&many(1025), message]]);
}

#[test]
fn what_is_for_vms_is_named_and_so_is_what_is_for_servers() {
    let context = format!("{LISTENER}{SERVERS}addresses = ['a:80']\n");
    for key in [
        "image = 'hello'",
        "port = 80",
        "vcpus = 1",
        "memory = '16MiB'",
        "env = {}",
        "args = []",
        "weight = 1",
        "isolation = 'request'",
        "start_timeout = '1s'",
        "scale = {}",
        "quarantine = {}",
        "signal = {}",
        "limits = {}",
    ] {
        let name = key.split(' ').next().expect("it has a name");
        let message = format!(r#"pool.old.{name}: is for VMs, and a pool with kind = "external" has none"#);
        check(&context, &[[key, &message]]);
    }
    let message = |key: &str| {
        format!(r#"pool.hello.{key}: is only for kind = "external": a VM has its address from host.network"#)
    };
    check(
        &format!("{LISTENER}{POOL}"),
        &[["addresses = ['a:80']", &message("addresses")], ["resolve = '30s'", &message("resolve")]],
    );
}

#[test]
fn servers_have_limits_and_the_rest_of_what_pools_have() {
    check(
        &format!("{LISTENER}{SERVERS}addresses = ['a:80']\n"),
        &[
            ["soft_limit = 1025", "pool.old.hard_limit: 1024 is less than soft_limit, which is 1025"],
            ["soft_limit = 1\nhard_limit = 65536", ""],
            ["hard_limit = 65537", "pool.old.hard_limit: must be from 1 to 65536, is 65537"],
            ["resolve = '999ms'", "pool.old.resolve: must not be shorter than 1s"],
            ["resolve = '1s'", ""],
            ["health = { path = 'up' }", r#"pool.old.health.path: must start with "/", is "up""#],
            ["queue = { max_pending = 0 }", "pool.old.queue.max_pending: must be from 1 to 1000000, is 0"],
            ["retry = { floor = -1 }", "pool.old.retry.floor: must be from 0 to 10000, is -1"],
            ["adresses = ['b:80']", r#"pool.old.adresses: unknown key, did you mean "addresses"?"#],
        ],
    );
}
