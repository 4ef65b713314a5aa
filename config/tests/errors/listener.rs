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

#[test]
fn proxy_protocol() {
    check(
        LISTENER,
        &[
            ["proxy_protocol = true\ntrusted = ['10.0.0.0/8', '::1']", ""],
            ["proxy_protocol = false", ""],
            ["proxy_protocol = 2", "listener[0].proxy_protocol: expected a boolean, found an integer"],
            [
                "proxy_protocol = true",
                "listener[0].proxy_protocol: needs trusted: who may say where a connection comes from",
            ],
            ["proxy_protocol = true\ntrusted = []", "listener[0].trusted: must name at least one network"],
            ["trusted = ['::1']", "listener[0].trusted: has no effect without proxy_protocol"],
            [
                "proxy_protocol = true\ntrusted = ['lb', '10.0.0.1/8']",
                "listener[0].trusted[0]: \"lb\" is no address and no network such as \"192.0.2.0/24\" or \"2001:db8::/32\"\n\
                 listener[0].trusted[1]: 10.0.0.1/8 is an address within a network, did you mean \"10.0.0.0/8\"?",
            ],
        ],
    );
}
