//! Every class of mistake in a text, with the exact message.

mod access_log;
mod acme;
mod action;
mod auth;
mod class;
mod compress;
mod external;
mod field_match;
mod filter;
mod follow;
mod host;
mod listener;
mod pool;
mod resilience;
mod route;
mod rule;
mod signal;
mod telemetry;

use std::fmt::Write;

use weir_config::parse;

/// What is needed besides the part under test.
const LISTENER: &str = "[[listener]]\naddress = '127.0.0.1:8080'\n";
const POOL: &str = "[pool.hello]\nimage = 'hello'\n";

/// Messages for `text` in its order, without positions: `KEY: MESSAGE`.
fn messages(text: &str) -> Vec<String> {
    let Err(errors) = parse(text, "test.toml") else { return Vec::new() };
    let errors = errors.into_iter();
    errors.map(|error| format!("{}: {}", error.key, error.message)).collect()
}

/// Holds `[text, message]` pairs against what `context` + text gives. An empty message: it is valid.
fn check(context: &str, cases: &[[&str; 2]]) {
    let mut wrong = String::new();
    for [text, expected] in cases {
        let found = messages(&format!("{context}{text}")).join("\n");
        if found != *expected {
            writeln!(wrong, "--- {text}\nexpected: {expected}\nfound:    {found}")
                .expect("write to a string");
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

#[test]
fn listeners_and_admin() {
    let listener = "[[listener]]\naddress =";
    check(
        "",
        &[
            ["", "listener: at least one [[listener]] is needed"],
            ["listener = []", "listener: at least one [[listener]] is needed"],
            ["listener = 3", "listener: expected tables [[listener]], found an integer"],
            ["listener = [3]", "listener[0]: expected a table, found an integer"],
            ["[listener]\naddress = '0.0.0.0:1'", "listener: expected tables [[listener]], found a table"],
            ["[[listener]]", "listener[0].address: required key is missing"],
            ["[[listener]]\naddress = 80", "listener[0].address: expected a string, found an integer"],
        ],
    );
    let no_address = |text: &str| {
        format!(
            r#"listener[0].address: {text:?} is no IP address with a port, such as "0.0.0.0:8080" or "[::]:8080""#
        )
    };
    for text in ["", "127.0.0.1", "localhost:80", "127.0.0.1:65536", ":80", "::1:80", "127.0.0.1:-1"] {
        check(listener, &[[&format!("'{text}'"), &no_address(text)]]);
    }
    check(
        LISTENER,
        &[
            ["[[listener]]\naddress = '[::1]:8080'", ""],
            ["[[listener]]\naddress = '127.0.0.1:0'\n[[listener]]\naddress = '127.0.0.1:0'", ""],
            ["[admin]\naddress = '127.0.0.1:9180'", ""],
            ["[admin]", "admin.address: required key is missing"],
            ["[[admin]]", "admin: expected a table, found an array"],
            [
                "[admin]\naddress = '127.0.0.1:8080'",
                "admin.address: 127.0.0.1:8080 overlaps listener[0].address, which is 127.0.0.1:8080",
            ],
            [
                "[[listener]]\naddress = '0.0.0.0:8080'",
                "listener[1].address: 0.0.0.0:8080 overlaps listener[0].address, which is 127.0.0.1:8080",
            ],
            [
                "[[listener]]\naddress = '[::]:8080'",
                "listener[1].address: [::]:8080 overlaps listener[0].address, which is 127.0.0.1:8080",
            ],
        ],
    );
}

#[test]
fn unknown_keys() {
    check(
        &format!("{LISTENER}{POOL}[[route]]\npool = 'hello'\n"),
        &[
            ["filters = {}", r#"route[0].filters: unknown key, did you mean "filter"?"#],
            ["filter.max_boby = '1B'", r#"route[0].filter.max_boby: unknown key, did you mean "max_body"?"#],
            ["hots = 'a'", r#"route[0].hots: unknown key, did you mean "host"?"#],
            ["[pool.hello.scael]", r#"pool.hello.scael: unknown key, did you mean "scale"?"#],
            ["[pool.hello.scale]\nmi = 1", r#"pool.hello.scale.mi: unknown key, did you mean "min"?"#],
            [
                "[pool.hello.health]\nintervall = '5s'",
                r#"pool.hello.health.intervall: unknown key, did you mean "interval"?"#,
            ],
            [
                "[pool.hello.scale]\nschedules = []",
                r#"pool.hello.scale.schedules: unknown key, did you mean "schedule"?"#,
            ],
            ["[pool.hello.retrys]", r#"pool.hello.retrys: unknown key, did you mean "retry"?"#],
            ["[pool.hello.limits]\nsend = '5MiB'", "pool.hello.limits.send: unknown key"],
            ["[hosts]", r#"hosts: unknown key, did you mean "host"?"#],
            ["[class.a]\nwieght = 2", r#"class.a.wieght: unknown key, did you mean "weight"?"#],
            ["[host]\n\"max vms\" = 1", r#"host."max vms": unknown key, did you mean "max_vms"?"#],
        ],
    );
}

#[test]
fn no_toml() {
    let errors = |text: &str| parse(text, "weir.toml").unwrap_err().to_string();
    assert_eq!(
        errors("[[listener]]\naddress = \n"),
        "weir.toml:2:11: string values must be quoted, expected literal string"
    );
    assert_eq!(errors("a = 1\nb = 2\n  a = 3\n"), "weir.toml:3:3: duplicate key");
    assert_eq!(errors("a = [1,\n"), "weir.toml:1:8: unclosed array, expected `]`");
    let deep = format!("a = {}{}", "[".repeat(10_000), "]".repeat(10_000));
    assert!(errors(&deep).starts_with("weir.toml:1:"), "{}", errors(&deep));
}

#[test]
fn everything_at_once_in_the_order_of_the_text() {
    let text = r#"
colour = "blue"

[[listener]]
address = "0.0.0.0"
backlog = 5

[host]
memory = "8"
max_vms = "many"

[pool.hello]
kind = "process"
prot = 8080
memory = "16M"
env = { PORT = "1", GREETING = 3 }

[pool.hello.scale]
min = 3
max = 2
idle_timeout = "30"

[[route]]
path = "api"
pool = "helo"
"#;
    let expected = r#"
weir.toml:2:1: colour: unknown key
weir.toml:5:11: listener[0].address: "0.0.0.0" is no IP address with a port, such as "0.0.0.0:8080" or "[::]:8080"
weir.toml:6:1: listener[0].backlog: unknown key
weir.toml:9:10: host.memory: "8" has no unit; units are B, KB, MB, GB, TB, KiB, MiB, GiB, TiB
weir.toml:10:11: host.max_vms: expected an integer, found a string
weir.toml:12:7: pool.hello.image: required key is missing
weir.toml:13:8: pool.hello.kind: kind "process" is not supported yet, only "unikernel" and "external"
weir.toml:14:1: pool.hello.prot: unknown key, did you mean "port"?
weir.toml:15:10: pool.hello.memory: "M" is no unit; units are B, KB, MB, GB, TB, KiB, MiB, GiB, TiB
weir.toml:16:16: pool.hello.env.PORT: is reserved: weir sets it to the pool's port
weir.toml:16:32: pool.hello.env.GREETING: expected a string, found an integer
weir.toml:20:7: pool.hello.scale.max: 2 is less than min, which is 3
weir.toml:21:16: pool.hello.scale.idle_timeout: "30" has no unit; units are ms, s, m, h
weir.toml:24:8: route[0].path: must start with "/", is "api"
weir.toml:25:8: route[0].pool: no pool is named "helo", did you mean "hello"?"#;
    let errors = parse(text, "weir.toml").unwrap_err();
    assert_eq!(format!("\n{errors}"), expected);
}
