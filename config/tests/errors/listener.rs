//! Mistakes in what a listener says about its connections.

use crate::{LISTENER, check};

#[test]
fn tls() {
    let files = "certificate = 'c.pem', key = 'k.pem'";
    check(
        LISTENER,
        &[
            [&format!("tls = {{ {files} }}"), ""],
            [&format!("tls = [{{ {files} }}, {{ {files} }}]"), ""],
            [&format!("min_version = '1.3'\ntls = {{ {files} }}"), ""],
            ["tls = 1", "listener[0].tls: expected tables [[tls]], found an integer"],
            ["tls = [1]", "listener[0].tls[0]: expected a table, found an integer"],
            [
                "tls = {}",
                "listener[0].tls.certificate: required key is missing\nlistener[0].tls.key: required key is missing",
            ],
            [
                "[[listener.tls]]\ncertificate = ''\nkey = 1",
                "listener[0].tls[0].certificate: must not be empty\nlistener[0].tls[0].key: expected a string, found an integer",
            ],
            [
                &format!("tls = {{ {files}, ky = '' }}"),
                r#"listener[0].tls.ky: unknown key, did you mean "key"?"#,
            ],
            ["min_version = '1.3'", "listener[0].min_version: has no effect without tls"],
            ["min_version = '1.3'\ntls = []", "listener[0].min_version: has no effect without tls"],
            [
                &format!("min_version = '1.1'\ntls = {{ {files} }}"),
                r#"listener[0].min_version: must be "1.2" or "1.3", is "1.1", did you mean "1.2"?"#,
            ],
        ],
    );
}

#[test]
fn connections() {
    check(
        LISTENER,
        &[
            ["http2 = true\nheader_timeout = '5s'\nmax_connections = 1", ""],
            ["http2 = 'yes'", "listener[0].http2: expected a boolean, found a string"],
            ["header_timeout = '0s'", "listener[0].header_timeout: must be longer than zero"],
            ["max_connections = 0", "listener[0].max_connections: must be from 1 to 10000000, is 0"],
        ],
    );
}
