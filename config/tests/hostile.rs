//! No text makes the reader panic, and whatever it says about one has the promised shape.

use proptest::prelude::*;
use toml::{Table, Value};
use weir_config::{Isolation, Thousandths, parse};

const SECTIONS: &[&str] = &["listener", "admin", "host", "class", "pool", "route"];
const KEYS: &[&str] = &[
    "address",
    "memory",
    "max_vms",
    "network",
    "kind",
    "image",
    "port",
    "vcpus",
    "env",
    "args",
    "soft_limit",
    "hard_limit",
    "start_timeout",
    "scale",
    "min",
    "max",
    "idle_timeout",
    "keep_last",
    "queue",
    "max_pending",
    "timeout",
    "isolation",
    "health",
    "limits",
    "cpu_weight",
    "cpu_quota",
    "send_rate",
    "receive_rate",
    "send_packets",
    "receive_packets",
    "log_lines",
    "weight",
    "class",
    "max_starts",
    "upgrade_timeout",
    "stable_window",
    "panic_window",
    "panic_threshold",
    "max_up_rate",
    "max_down_rate",
    "idle",
    "schedule",
    "days",
    "from",
    "to",
    "overflow",
    "max_memory",
    "interval",
    "unhealthy_after",
    "retry",
    "budget",
    "floor",
    "quarantine",
    "kills",
    "duration",
    "signal",
    "scrape",
    "metric",
    "target",
    "weights",
    "snapshots",
    "name",
    "host",
    "path",
    "pool",
    "methods",
    "respond",
    "status",
    "body",
    "headers",
    "redirect",
    "rewrite",
    "prefix",
    "regex",
    "filter",
    "allow",
    "deny",
    "block_list",
    "auth",
    "basic",
    "realm",
    "jwt",
    "jwks",
    "algorithms",
    "issuer",
    "audience",
    "leeway",
    "forward",
    "cookie",
    "header",
    "claims_to_headers",
    "user_header",
    "max_body",
    "max_header",
    "max_in_flight_per_client",
    "max_connections_per_client",
    "timeout",
    "body_timeout",
    "min_body_rate",
    "write_timeout",
    "tunnel_idle_timeout",
    "idle_timeout",
    "trusted_proxies",
    "mode",
    "protocol",
    "hsts",
    "max_age",
    "preload",
    "rule",
    "when",
    "then",
    "set_request_headers",
    "remove_response_headers",
    "cors",
    "origins",
    "credentials",
];
const STRINGS: &[&str] = &[
    "127.0.0.1:80",
    "unix:/run/weir.sock",
    "unix:/",
    "0660",
    "0.0.0.0:80",
    "[::]:80",
    "16MiB",
    "3GiB",
    "1h1m",
    "18446744073709551615s",
    "10.0.0.0/8",
    "0.0.0.0/0",
    "10.0.0.0/31",
    "unikernel",
    "vm",
    "request",
    "hello",
    "/",
    "/%2e",
    "*.a",
    "08:00",
    "24:00",
    "mon",
    "default",
    "unused",
    "reject",
    "jobs{a=\"b\"}",
    "GET",
    "https://{host}{path}{query}",
    "/$1",
    "^/(a|b)",
    "request.path == '/'",
    "deny",
    "(",
    "[::1]",
    "",
];

fn key() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => prop::sample::select(KEYS).prop_map(str::to_owned),
        1 => any::<String>(),
    ]
}

/// Values as they could stand in a configuration, and some that could not.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        4 => prop::sample::select(STRINGS).prop_map(|text| Value::String(text.to_owned())),
        1 => any::<String>().prop_map(Value::String),
        1 => any::<i64>().prop_map(Value::Integer),
        2 => (0_i64..70).prop_map(Value::Integer),
        1 => any::<f64>().prop_map(Value::Float),
        1 => any::<bool>().prop_map(Value::Boolean),
    ];
    leaf.prop_recursive(3, 40, 6, |inner| {
        prop_oneof![
            1 => prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            3 => prop::collection::btree_map(key(), inner, 0..10)
                .prop_map(|entries| Value::Table(entries.into_iter().collect())),
        ]
    })
}

fn table() -> impl Strategy<Value = Value> {
    prop::collection::btree_map(key(), value(), 0..12)
        .prop_map(|entries| Value::Table(entries.into_iter().collect()))
}

/// Documents whose sections have mostly the right shape, so that the checks behind are reached.
fn document() -> impl Strategy<Value = Table> {
    let section = prop_oneof![
        2 => table(),
        4 => prop::collection::vec(table(), 0..4).prop_map(Value::Array),
        4 => prop::collection::btree_map("[a-c]|hello", table(), 0..4)
            .prop_map(|entries| Value::Table(entries.into_iter().collect())),
        1 => value(),
    ];
    prop::collection::btree_map(prop::sample::select(SECTIONS).prop_map(str::to_owned), section, 0..6)
        .prop_map(|entries| entries.into_iter().collect())
}

/// Parses and holds the answer against what every answer promises.
fn check(text: &str) -> Result<(), TestCaseError> {
    match parse(text, "f") {
        Ok(config) => {
            prop_assert!(!config.listeners.is_empty());
            for route in &config.routes {
                prop_assert!(route.pools().all(|pool| config.pools.contains_key(pool)));
                prop_assert!(route.path.starts_with('/'));
                prop_assert!(config.classes[&route.class.name] == route.class);
            }
            prop_assert!((1..=64).contains(&config.classes.len()));
            for (name, pool) in &config.pools {
                prop_assert_eq!(name, &pool.name);
                prop_assert!(pool.memory <= config.host.memory);
                prop_assert!(pool.soft_limit <= pool.hard_limit && pool.scale.min <= pool.scale.max);
                prop_assert!(pool.scale.idle_timeout <= pool.scale.keep_last);
                prop_assert!(pool.scale.panic_window <= pool.scale.stable_window);
                prop_assert!(pool.scale.max_up_rate > Thousandths(1000));
                for schedule in &pool.scale.schedule {
                    prop_assert!(schedule.days.contains(&true) && schedule.min <= pool.scale.max);
                    prop_assert!(schedule.from < 1440 && schedule.to <= 1440 && schedule.from != schedule.to);
                }
                prop_assert!(pool.retry.budget <= Thousandths(1000));
                if let Some(signal) = &pool.signal {
                    prop_assert!(signal.target > Thousandths(0) && signal.timeout <= signal.interval);
                }
                prop_assert!(pool.isolation == Isolation::Vm || pool.hard_limit == 1);
                prop_assert!((1..=10_000).contains(&pool.limits.cpu_weight));
                prop_assert!(pool.limits.cpu_quota.is_none_or(|quota| quota >= 10));
            }
        }
        Err(errors) => {
            let shown = errors.to_string();
            let errors = errors.as_slice();
            prop_assert!(!errors.is_empty());
            prop_assert_eq!(shown.lines().count(), errors.len(), "one line each: {}", shown);
            prop_assert!(errors.is_sorted_by_key(|error| &error.location));
            prop_assert!(errors.iter().all(|error| !error.message.is_empty()));
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn any_text(text: String) {
        check(&text)?;
    }

    #[test]
    fn text_of_toml_tokens(text in r#"((\[\[?(listener|pool\.a|route|host)\]?\]|[a-z]+ ?= ?("[^"]{0,8}"|[0-9x_-]{1,40}|\{[a-z=" ,1]{0,9}\}))\n?){0,12}"#) {
        check(&text)?;
    }

    #[test]
    fn any_condition(condition in r#"((request|client|headers|path|ip|ip_in|matches|size|has|true|in|[0-9]{1,3}|'[^']{0,4}')|[ .()\[\]{}!&|?:=<>,+-]{1,2}|\\PC){0,24}"#) {
        let head = "[[listener]]\naddress = '127.0.0.1:80'\n[[route]]\nrespond = {}\n[[route.filter.rule]]\nthen = 'deny'\n";
        check(&format!("{head}when = {}\n", Value::String(condition)))?;
    }

    #[test]
    fn any_document(document in document()) {
        check(&toml::to_string(&document).expect("a table can be written"))?;
    }

    #[test]
    fn a_good_document_cut_and_glued(cut in any::<prop::sample::Index>(), insert in "\\PC{0,6}", skip in 0_usize..6) {
        let good = include_str!("../../examples/hello.toml");
        let at = good.floor_char_boundary(cut.index(good.len() + 1));
        let rest = good.ceil_char_boundary((at + skip).min(good.len()));
        check(&format!("{}{insert}{}", &good[..at], &good[rest..]))?;
    }
}
