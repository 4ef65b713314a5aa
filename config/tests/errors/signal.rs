//! Mistakes in `[pool.NAME.signal]`.

use crate::{LISTENER, POOL, check};

#[test]
fn pool_signal() {
    let missing = |key: &str| format!("pool.hello.signal.{key}: required key is missing");
    check(
        &format!("{LISTENER}{POOL}[pool.hello.signal]\n"),
        &[
            ["", &["scrape", "metric", "target"].map(missing).join("\n")],
            ["scrape = '/metrics'\nmetric = 'depth'", &missing("target")],
        ],
    );
    let key = |message: &str| format!("pool.hello.signal.{message}");
    check(
        &format!(
            "{LISTENER}{POOL}[pool.hello.signal]\nscrape = '/metrics?a=b'\nmetric = 'depth'\ntarget = 1.5\n"
        ),
        &[
            ["interval = '500ms'\nweights = true", ""],
            ["interval = '1ms'\ntimeout = '1ms'", ""],
            ["interval = '499ms'", &key("timeout: 500ms is longer than interval, which is 499ms")],
            ["timeout = '2s'", &key("timeout: 2s is longer than interval, which is 1s")],
            ["timeout = '0s'", &key("timeout: must be longer than zero")],
            ["weights = 1", &key("weights: expected a boolean, found an integer")],
        ],
    );
}

#[test]
fn pool_signal_values() {
    let context = |but: &str| {
        let keys = ["scrape = '/metrics'\n", "metric = 'depth'\n", "target = 10\n"];
        let keys: String = keys.into_iter().filter(|key| !key.starts_with(but)).collect();
        format!("{LISTENER}{POOL}[pool.hello.signal]\n{keys}{but} =")
    };
    check(
        &context("scrape"),
        &[
            ["'metrics'", r#"pool.hello.signal.scrape: must start with "/", is "metrics""#],
            [
                "\"/m HTTP/1.1\\r\\nx: y\"",
                r#"pool.hello.signal.scrape: "/m HTTP/1.1\r\nx: y" has a character that must be percent-encoded, or is encoded wrongly"#,
            ],
            ["3", "pool.hello.signal.scrape: expected a string, found an integer"],
        ],
    );
    check(
        &context("metric"),
        &[
            [r#"'jobs{kind="mail"}'"#, ""],
            [
                "\"jo\\nbs\"",
                r#"pool.hello.signal.metric: "jo\nbs" is no metric such as 'queue_depth' or 'jobs{kind="mail"}'"#,
            ],
            [
                r#"'jobs{a="",a="b"}'"#,
                r#"pool.hello.signal.metric: "jobs{a=\"\",a=\"b\"}" has the label "a" twice"#,
            ],
            ["\"\\u0000\"", "pool.hello.signal.metric: must not contain a NUL character"],
        ],
    );
    let range =
        |number: &str| format!("pool.hello.signal.target: must be from 0.001 to 1000000000000, is {number}");
    check(
        &context("target"),
        &[
            ["0.001", ""],
            ["1000000000000", ""],
            ["0", &range("0")],
            ["-3", &range("-3")],
            ["1000000000000.001", &range("1000000000000.001")],
            ["nan", "pool.hello.signal.target: must be a number such as 0.5, is nan"],
        ],
    );
}
