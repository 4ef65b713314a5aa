//! `tls`: CPU time per TLS 1.3 handshake and per request over HTTP/2, of weir and of nginx in front of one nginx, in turn.
//!
//! Both have the same certificate (ECDSA, P-256). A handshake here is a new connection without a ticket, one GET over it,
//! and its end; openssl s_time makes them, one after another. HTTP/2 is h2load's, 16 connections of 32 streams.

mod load;
#[path = "../tests/support/mod.rs"]
mod support;

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use load::peer::{Peer, cpu_seconds, free};
use support::{Weir, print_median};

const ROUNDS: usize = 7;

fn main() {
    let directory = tempfile::tempdir().expect("make a directory");
    let [server, by_nginx] = [free(), free()];
    let (certificate, key) = certificate(directory.path());
    let serve = format!(
        "server {{ access_log off; listen {server}; location / {{ return 200 \"{}\"; }} }}",
        "x".repeat(1024)
    );
    let _upstream = Peer::nginx(directory.path(), "server", server, &serve);
    let pass = format!(
        "ssl_certificate {certificate};\nssl_certificate_key {key};\nssl_protocols TLSv1.3;\nssl_session_cache off;\n\
         upstream u {{ server {server}; keepalive 128; keepalive_requests 1000000000; }}\n\
         server {{ listen {by_nginx} ssl http2; location / {{ proxy_pass http://u; \
         proxy_http_version 1.1; proxy_set_header Connection \"\"; }} }}"
    );
    let nginx = Peer::nginx(directory.path(), "proxy", by_nginx, &pass);
    let weir = Weir::start(&format!(
        "[[listener]]\naddress = \"127.0.0.1:0\"\nmin_version = \"1.3\"\n[[listener.tls]]\n\
         certificate = \"{certificate}\"\nkey = \"{key}\"\n[admin]\naddress = \"127.0.0.1:0\"\n\
         [pool.u]\nkind = \"external\"\naddresses = [\"{server}\"]\nsoft_limit = 1024\nhard_limit = 1024\n\
         [[route]]\npool = \"u\"\n"
    ));
    weir.until("the server is in service", || weir.metric("weir_upstream_servers", "") >= 1.0);

    let proxies = [("weir", weir.http, vec![weir.pid()]), ("nginx", nginx.address, nginx.processes())];
    for (what, load) in [("handshake", handshakes as fn(SocketAddr) -> f64), ("h2 request", h2_requests)] {
        let mut micros = [Vec::new(), Vec::new()];
        for _ in 0..ROUNDS {
            for ((_, address, processes), micros) in proxies.iter().zip(&mut micros) {
                let before = cpu_seconds(processes);
                let count = load(*address);
                micros.push((cpu_seconds(processes) - before) * 1e6 / count);
            }
        }
        let mut ratios: Vec<_> = micros[0].iter().zip(&micros[1]).map(|(weir, nginx)| nginx / weir).collect();
        for ((name, ..), micros) in proxies.iter().zip(&mut micros) {
            print_median(&format!("tls: {name}, us of CPU per {what}"), micros);
        }
        print_median(&format!("tls: {what}s per second of CPU, weir : nginx"), &mut ratios);
    }
}

/// Two seconds of new connections; how many.
fn handshakes(address: SocketAddr) -> f64 {
    let said = run(Command::new("openssl")
        .args(["s_time", "-new", "-tls1_3", "-time", "2", "-www", "/"])
        .args(["-connect", &address.to_string()]));
    // "2000 connections in 3 real seconds, ..."
    let real = said.lines().find_map(|line| line.split_once(" connections in ")?.0.trim().parse().ok());
    real.unwrap_or_else(|| panic!("openssl counts connections: {said}"))
}

/// Requests over 16 connections of 32 streams; how many.
fn h2_requests(address: SocketAddr) -> f64 {
    const REQUESTS: u32 = 30_000;
    let options = ["-n", &REQUESTS.to_string(), "-c", "16", "-m", "32"];
    let said = run(Command::new("h2load").args(options).arg(format!("https://{address}/")));
    let good = format!("status codes: {REQUESTS} 2xx");
    assert!(said.contains(&good), "only good answers count: {said}");
    f64::from(REQUESTS)
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("run {command:?}: {error}"));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A self-signed certificate and its key.
fn certificate(directory: &Path) -> (String, String) {
    let path = |name: &str| directory.join(name).display().to_string();
    let (certificate, key) = (path("certificate.pem"), path("key.pem"));
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"])
        .args([
            "-subj",
            "/CN=localhost",
            "-addext",
            "subjectAltName=DNS:localhost,IP:127.0.0.1",
            "-days",
            "2",
        ])
        .args(["-out", &certificate, "-keyout", &key])
        .output()
        .expect("run openssl");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    (certificate, key)
}
