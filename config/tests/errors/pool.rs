//! Mistakes in `[pool.NAME]`.

use crate::{LISTENER, POOL, check};

#[test]
fn pools() {
    check(
        LISTENER,
        &[
            ["[[pool]]\nimage = 'x'", "pool: expected tables [pool.NAME], found an array"],
            ["[pool]\nhello = 3", "pool.hello: expected a table, found an integer"],
            ["[pool.hello]", "pool.hello.image: required key is missing"],
            [
                "[pool.Hello]\nimage = 'x'",
                r#"pool.Hello: a pool's name has 1 to 63 characters of a-z, 0-9 and "-""#,
            ],
            [
                "[pool.'']\nimage = 'x'",
                r#"pool."": a pool's name has 1 to 63 characters of a-z, 0-9 and "-""#,
            ],
            ["[pool.a]\nimage = ''", "pool.a.image: must not be empty"],
            ["[pool.a]\nimage = \"a\\u0000b\"", "pool.a.image: must not contain a NUL character"],
        ],
    );
    let long = "x".repeat(64);
    let text = format!("[pool.{long}]\nimage = 'x'");
    let message = format!(r#"pool.{long}: a pool's name has 1 to 63 characters of a-z, 0-9 and "-""#);
    check(LISTENER, &[[&text, &message], [&text.replace(&long, &long[1..]), ""]]);
}

#[test]
fn pool_machine() {
    check(
        &format!("{LISTENER}{POOL}"),
        &[
            ["kind = 'unikernel'", ""],
            [
                "kind = 'process'",
                r#"pool.hello.kind: kind "process" is not supported yet, only "unikernel" and "external""#,
            ],
            [
                "kind = 'unikernl'",
                r#"pool.hello.kind: "unikernl" is no kind of pool, did you mean "unikernel"?"#,
            ],
            ["kind = 'vm'", r#"pool.hello.kind: "vm" is no kind of pool"#],
            ["port = 0", "pool.hello.port: must be from 1 to 65535, is 0"],
            ["port = 65536", "pool.hello.port: must be from 1 to 65535, is 65536"],
            ["port = 0x1_0000", "pool.hello.port: must be from 1 to 65535, is 0x10000"],
            ["port = '80'", "pool.hello.port: expected an integer, found a string"],
            ["vcpus = 0", "pool.hello.vcpus: must be from 1 to 4294967295, is 0"],
            ["vcpus = 2", "pool.hello.vcpus: more than 1 virtual CPU is not supported yet"],
            ["memory = '4MiB'", "pool.hello.memory: must be from 8MiB to 3GiB, is 4MiB"],
            ["memory = '4GiB'", "pool.hello.memory: must be from 8MiB to 3GiB, is 4GiB"],
            ["memory = '8MiB'", ""],
            ["memory = '3GiB'", ""],
            ["memory = '10MB'", "pool.hello.memory: must be a multiple of 4KiB, is 10000000B"],
            [
                "memory = 16",
                r#"pool.hello.memory: expected a size such as "16MiB", found an integer; units are B, KB, MB, GB, TB, KiB, MiB, GiB, TiB"#,
            ],
            ["weight = 1000", ""],
            ["weight = 0", "pool.hello.weight: must be from 1 to 1000, is 0"],
            ["weight = 1001", "pool.hello.weight: must be from 1 to 1000, is 1001"],
            ["weight = 1.0", "pool.hello.weight: expected an integer, found a float"],
            ["soft_limit = 0", "pool.hello.soft_limit: must be from 1 to 1024, is 0"],
            ["hard_limit = 1025", "pool.hello.hard_limit: must be from 1 to 1024, is 1025"],
            [
                "soft_limit = 9\nhard_limit = 8",
                "pool.hello.hard_limit: 8 is less than soft_limit, which is 9",
            ],
            ["soft_limit = 65", "pool.hello.hard_limit: 64 is less than soft_limit, which is 65"],
            ["soft_limit = 8\nhard_limit = 8", ""],
            ["protocol = 'h2c'", ""],
            ["protocol = 'h2'", r#"pool.hello.protocol: must be "h1" or "h2c", is "h2", did you mean "h1"?"#],
            [
                "protocol = 'h2c'\nhealth.path = '/'",
                "pool.hello.protocol: is not for pools with health.path, which asks in HTTP/1",
            ],
            [
                "protocol = 'h2c'\nsignal = { scrape = '/', metric = 'm', target = 1 }",
                "pool.hello.protocol: is not for pools with signal, which asks in HTTP/1",
            ],
            ["start_timeout = '0s'", "pool.hello.start_timeout: must be longer than zero"],
            ["start_timeout = '8761h'", "pool.hello.start_timeout: must not be longer than 8760h"],
            ["start_timeout = '5'", r#"pool.hello.start_timeout: "5" has no unit; units are ms, s, m, h"#],
            [
                "start_timeout = 5",
                r#"pool.hello.start_timeout: expected a duration such as "30s", found an integer; units are ms, s, m, h"#,
            ],
        ],
    );
}

#[test]
fn pool_scale_and_queue() {
    check(
        &format!("{LISTENER}{POOL}"),
        &[
            ["scale.max = 0", "pool.hello.scale.max: must be from 1 to 4294967295, is 0"],
            ["scale.min = -1", "pool.hello.scale.min: must be from 0 to 4294967295, is -1"],
            ["scale = { min = 3, max = 2 }", "pool.hello.scale.max: 2 is less than min, which is 3"],
            ["scale.min = 65", "pool.hello.scale.max: 64 is less than min, which is 65"],
            ["scale.idle_timeout = '0ms'", "pool.hello.scale.idle_timeout: must be longer than zero"],
            ["scale.keep_last = '0ms'", "pool.hello.scale.keep_last: must be longer than zero"],
            ["scale.keep_last = '30s'", ""],
            [
                "scale.keep_last = '29s'",
                "pool.hello.scale.idle_timeout: 30s is longer than keep_last, which is 29s",
            ],
            [
                "scale = { idle_timeout = '0ms', keep_last = '1ms' }",
                "pool.hello.scale.idle_timeout: must be longer than zero",
            ],
            ["scale = 1", "pool.hello.scale: expected a table, found an integer"],
            ["queue.max_pending = 0", "pool.hello.queue.max_pending: must be from 1 to 1000000, is 0"],
            ["queue.timeout = '0s'", "pool.hello.queue.timeout: must be longer than zero"],
            ["queue = { overflow = 'wait', max_memory = '64KiB' }", ""],
            ["queue = { overflow = 'reject', max_memory = '4GiB' }", ""],
            [
                "queue.overflow = 'rejct'",
                r#"pool.hello.queue.overflow: must be "wait" or "reject", is "rejct", did you mean "reject"?"#,
            ],
            ["queue.overflow = 503", "pool.hello.queue.overflow: expected a string, found an integer"],
            [
                "queue.max_memory = '65535B'",
                "pool.hello.queue.max_memory: must be from 64KiB to 4GiB, is 65535B",
            ],
            ["queue.max_memory = '5GiB'", "pool.hello.queue.max_memory: must be from 64KiB to 4GiB, is 5GiB"],
            ["queue = true", "pool.hello.queue: expected a table, found a boolean"],
        ],
    );
}

#[test]
fn pool_isolation() {
    let alone = r#"must be 1, or left out, with an isolation other than "vm": one tenant at a time; is"#;
    check(
        &format!("{LISTENER}{POOL}"),
        &[
            ["isolation = 'vm'\nhard_limit = 1024", ""],
            ["isolation = 'request'\nsoft_limit = 1\nhard_limit = 1", ""],
            ["isolation = 'request'\nhard_limit = 2", &format!("pool.hello.hard_limit: {alone} 2")],
            [
                "isolation = 'connection'\nhard_limit = 8\nsoft_limit = 9",
                &format!("pool.hello.hard_limit: {alone} 8\npool.hello.soft_limit: {alone} 9"),
            ],
            ["isolation = 'request'\nhard_limit = 0", "pool.hello.hard_limit: must be from 1 to 1024, is 0"],
            [
                "isolation = 'requests'\nhard_limit = 1",
                r#"pool.hello.isolation: must be "vm", "connection" or "request", is "requests", did you mean "request"?"#,
            ],
            ["isolation = ''", r#"pool.hello.isolation: must be "vm", "connection" or "request", is """#],
            ["isolation = true", "pool.hello.isolation: expected a string, found a boolean"],
        ],
    );
}

#[test]
fn pool_health() {
    check(
        &format!("{LISTENER}{POOL}[pool.hello.health]\n"),
        &[
            ["path = '/up?a=b'\ntimeout = '100ms'", ""],
            ["path = 'up'", r#"pool.hello.health.path: must start with "/", is "up""#],
            [
                "path = \"/up HTTP/1.1\\r\\nx: y\"",
                r#"pool.hello.health.path: "/up HTTP/1.1\r\nx: y" has a character that must be percent-encoded, or is encoded wrongly"#,
            ],
            ["path = \"/\\u0000\"", "pool.hello.health.path: must not contain a NUL character"],
            ["timeout = '0s'", "pool.hello.health.timeout: must be longer than zero"],
            ["interval = '100ms'\nunhealthy_after = 100", ""],
            ["interval = '0s'", "pool.hello.health.interval: must be longer than zero"],
            ["unhealthy_after = 0", "pool.hello.health.unhealthy_after: must be from 1 to 100, is 0"],
            ["unhealthy_after = 101", "pool.hello.health.unhealthy_after: must be from 1 to 100, is 101"],
        ],
    );
}

#[test]
fn pool_retry_and_quarantine() {
    let number = |number: &str| format!("pool.hello.retry.budget: must be from 0 to 1, is {number}");
    check(
        &format!("{LISTENER}{POOL}"),
        &[
            ["retry = { budget = 0, floor = 0 }", ""],
            ["retry = { budget = 1.000, floor = 10000 }", ""],
            ["retry.budget = 1.001", &number("1.001")],
            ["retry.budget = -0.0", &number("-0.0")],
            ["retry.budget = 18446744073709551616", &number("18446744073709551616")],
            ["retry.budget = 0.0001", "pool.hello.retry.budget: must have at most three decimals, is 0.0001"],
            ["retry.budget = inf", "pool.hello.retry.budget: must be a number such as 0.5, is inf"],
            [
                "retry.budget = '0.2'",
                "pool.hello.retry.budget: expected a number such as 0.5, found a string",
            ],
            ["retry.floor = 10001", "pool.hello.retry.floor: must be from 0 to 10000, is 10001"],
            ["retry = 3", "pool.hello.retry: expected a table, found an integer"],
            ["quarantine = { kills = 1, duration = '1h' }", ""],
            ["quarantine.kills = 0", "pool.hello.quarantine.kills: must be from 1 to 100, is 0"],
            ["quarantine.kills = 101", "pool.hello.quarantine.kills: must be from 1 to 100, is 101"],
            ["quarantine.duration = '0s'", "pool.hello.quarantine.duration: must be longer than zero"],
        ],
    );
}

#[test]
fn pool_limits() {
    let quota = |message: &str| format!("pool.hello.limits.cpu_quota: {message}");
    check(
        &format!("{LISTENER}{POOL}[pool.hello.limits]\n"),
        &[
            ["cpu_weight = 1\ncpu_quota = 0.01", ""],
            ["cpu_weight = 0", "pool.hello.limits.cpu_weight: must be from 1 to 10000, is 0"],
            ["cpu_weight = 10001", "pool.hello.limits.cpu_weight: must be from 1 to 10000, is 10001"],
            ["cpu_weight = 1.0", "pool.hello.limits.cpu_weight: expected an integer, found a float"],
            ["cpu_quota = 0", &quota("must be from 0.01 to 1024, is 0")],
            ["cpu_quota = 0.009", &quota("must be from 0.01 to 1024, is 0.009")],
            ["cpu_quota = -0.5", &quota("must be from 0.01 to 1024, is -0.5")],
            ["cpu_quota = 1024.001", &quota("must be from 0.01 to 1024, is 1024.001")],
            [
                "cpu_quota = 99999999999999999999",
                &quota("must be from 0.01 to 1024, is 99999999999999999999"),
            ],
            ["cpu_quota = 0.3333", &quota("must have at most three decimals, is 0.3333")],
            ["cpu_quota = 5e-1", &quota("must be a number such as 0.5, is 5e-1")],
            ["cpu_quota = nan", &quota("must be a number such as 0.5, is nan")],
            ["cpu_quota = -inf", &quota("must be a number such as 0.5, is -inf")],
            ["cpu_quota = 0x1", &quota("must be a decimal number")],
            ["cpu_quota = '50%'", &quota("expected a number such as 0.5, found a string")],
            [
                "send_rate = '0B'",
                "pool.hello.limits.send_rate: must be more than zero; leave it out for no limit",
            ],
            [
                "receive_rate = '1MiB/s'",
                r#"pool.hello.limits.receive_rate: "1MiB/s" is not a number with a unit; units are B, KB, MB, GB, TB, KiB, MiB, GiB, TiB"#,
            ],
            ["send_packets = 0", "pool.hello.limits.send_packets: must be from 1 to 1000000000, is 0"],
            [
                "receive_packets = 1000000001",
                "pool.hello.limits.receive_packets: must be from 1 to 1000000000, is 1000000001",
            ],
            ["log_lines = 0", "pool.hello.limits.log_lines: must be from 1 to 1000000, is 0"],
        ],
    );
}

#[test]
fn pool_strings() {
    let name = r#"a variable's name must not be empty nor contain "=" or a NUL character"#;
    check(
        &format!("{LISTENER}{POOL}"),
        &[
            ["env = { A = '', B = '=' }\nargs = ['', 'x']", ""],
            ["env = ['A=1']", "pool.hello.env: expected a table of strings, found an array"],
            ["env = { A = 1 }", "pool.hello.env.A: expected a string, found an integer"],
            ["env = { '' = 'x' }", &format!(r#"pool.hello.env."": {name}"#)],
            ["env = { 'A=B' = 'x' }", &format!(r#"pool.hello.env."A=B": {name}"#)],
            ["env = { \"A\\u0000\" = 'x' }", &format!(r#"pool.hello.env."A\0": {name}"#)],
            ["env = { A = \"\\u0000\" }", "pool.hello.env.A: must not contain a NUL character"],
            ["env = { PORT = '1' }", "pool.hello.env.PORT: is reserved: weir sets it to the pool's port"],
            ["args = 'x'", "pool.hello.args: expected an array of strings, found a string"],
            [
                "args = ['x', 1, \"\\u0000\"]",
                "pool.hello.args[1]: expected a string, found an integer\n\
                 pool.hello.args[2]: must not contain a NUL character",
            ],
        ],
    );
}

#[test]
fn pool_strings_fit_their_region() {
    // "PORT=65535\0" takes 11 bytes, "A=" and the NUL characters of both strings 4.
    let fits = (60 << 10) - 1 - 11 - 4 - 100;
    for (length, expected) in [
        (fits, ""),
        (fits + 1, "pool.hello: env and args take 61440 bytes together, must be less than 61440"),
    ] {
        let (value, arg) = ("v".repeat(length), "a".repeat(100));
        check(
            &format!("{LISTENER}{POOL}"),
            &[[&format!("env = {{ A = '{value}' }}\nargs = ['{arg}']"), expected]],
        );
    }
}
