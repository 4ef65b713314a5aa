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
            [&format!("client_ca = 'ca.pem'\nclient_auth = 'optional'\ntls = {{ {files} }}"), ""],
            [
                "client_ca = 'ca.pem'\nclient_auth = 'optional'",
                "listener[0].client_ca: has no effect without tls",
            ],
            [
                &format!("client_auth = 'optional'\ntls = {{ {files} }}"),
                "listener[0].client_auth: has no effect without client_ca",
            ],
            [
                &format!("client_ca = 'ca.pem'\nclient_auth = 'on'\ntls = {{ {files} }}"),
                r#"listener[0].client_auth: must be "required" or "optional", is "on""#,
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
fn hsts() {
    let tls = "tls = { certificate = 'c.pem', key = 'k.pem' }\n";
    let with = |hsts: &str| format!("{tls}hsts = {hsts}");
    let needs = "listener[0].hsts.preload: needs include_subdomains and a max_age of 8760h";
    check(
        LISTENER,
        &[
            [&with("{ max_age = '8760h', include_subdomains = true, preload = true }"), ""],
            [&with("{ max_age = '0s' }"), ""],
            [&with("{}"), "listener[0].hsts.max_age: required key is missing"],
            [&with("true"), "listener[0].hsts: expected a table, found a boolean"],
            [
                &with("{ max_age = 1, x = 1 }"),
                "listener[0].hsts.max_age: expected a duration such as \"30s\", found an integer; units are ms, s, m, h\nlistener[0].hsts.x: unknown key",
            ],
            [&with("{ max_age = '8761h' }"), "listener[0].hsts.max_age: must not be longer than 8760h"],
            [&with("{ max_age = '8760h', preload = true }"), needs],
            [&with("{ max_age = '8759h', include_subdomains = true, preload = true }"), needs],
            ["hsts = { max_age = '1h' }", "listener[0].hsts: has no effect without tls"],
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
            ["idle_timeout = '1h'\nmax_connections_per_client = 1", ""],
            ["idle_timeout = '0s'", "listener[0].idle_timeout: must be longer than zero"],
            [
                "max_connections_per_client = 0",
                "listener[0].max_connections_per_client: must be from 1 to 10000000, is 0",
            ],
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

#[test]
fn unix_sockets() {
    let at = |address: &str| format!("[[listener]]\naddress = 'unix:{address}'\n");
    let long = format!("/{}", "x".repeat(107));
    check(
        "",
        &[
            [&at("/run/weir.sock"), ""],
            [&(at("/run/weir.sock") + "mode = '0600'"), ""],
            [&(at("/run/weir.sock") + "mode = '777'\nproxy_protocol = true"), ""],
            [&at(&long[..107]), ""],
            [&at(&long), "listener[0].address: a socket's path has at most 107 bytes, this has 108"],
            [
                &at("weir.sock"),
                r#"listener[0].address: "weir.sock" is no absolute path, such as "unix:/run/weir.sock""#,
            ],
            [&at(""), r#"listener[0].address: "" is no absolute path, such as "unix:/run/weir.sock""#],
            [&at("/run/"), r#"listener[0].address: "/run/" is no plain path of a file"#],
            [&at("/run/../s"), r#"listener[0].address: "/run/../s" is no plain path of a file"#],
            [
                "[[listener]]\naddress = \"unix:/s\\u0000\"",
                "listener[0].address: must not contain a NUL character",
            ],
            [
                &(at("/s") + &at("/s")),
                "listener[1].address: unix:/s overlaps listener[0].address, which is unix:/s",
            ],
            [
                &(at("/s") + "mode = '0888'"),
                r#"listener[0].mode: "0888" is no mode from "0000" to "0777", such as "0660""#,
            ],
            [
                &(at("/s") + "mode = '4777'"),
                r#"listener[0].mode: "4777" is no mode from "0000" to "0777", such as "0660""#,
            ],
            [&(at("/s") + "mode = 660"), "listener[0].mode: expected a string, found an integer"],
            [
                &(at("/s") + "proxy_protocol = true\ntrusted = ['::1']"),
                "listener[0].trusted: is for networks: who may open a Unix socket is trusted",
            ],
        ],
    );
    check(LISTENER, &[["mode = '0600'", "listener[0].mode: is for Unix sockets: an IP address has none"]]);
}

#[test]
fn redirects() {
    check(
        LISTENER,
        &[
            ["redirect_https = true", ""],
            ["redirect_https = 1", "listener[0].redirect_https: expected a boolean, found an integer"],
            [
                "redirect_https = true\ntls = { certificate = 'c.pem', key = 'k.pem' }",
                "listener[0].redirect_https: is for a listener without tls",
            ],
        ],
    );
}
