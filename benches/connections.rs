//! `connections`: what 10,000 connections cost that are idle, or that send one byte of a request and then nothing, of weir
//! beside nginx; and how long another client waits meanwhile.
//!
//! Memory is the processes' own (PSS); the kernel's, for the sockets, is the same for both.

mod load;
#[path = "../tests/support/mod.rs"]
mod support;

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use load::peer::{Peer, free, proportional_kib};
use load::{Client, header};
use support::{Weir, print_percentiles};

const CONNECTIONS: usize = 10_000;
const GETS: usize = 2_000;

fn main() {
    raise_file_limit();
    let directory = tempfile::tempdir().expect("make a directory");
    let [server, by_nginx] = [free(), free()];
    let serve = format!("server {{ access_log off; listen {server}; location / {{ return 200 \"ok\"; }} }}");
    let _upstream = Peer::nginx(directory.path(), "server", server, &serve);
    let pass = format!(
        "keepalive_timeout 600s; client_header_timeout 600s;\nupstream u {{ server {server}; keepalive 128; }}\n\
         server {{ listen {by_nginx} backlog=4096; location / {{ proxy_pass http://u; proxy_http_version 1.1; \
         proxy_set_header Connection \"\"; }} }}"
    );
    let nginx = Peer::nginx(directory.path(), "proxy", by_nginx, &pass);
    let text = header("").replacen("address", "header_timeout = \"60s\"\naddress", 1);
    let pool = format!("kind = \"external\"\naddresses = [\"{server}\"]");
    let weir = Weir::start(&format!("{text}[pool.u]\n{pool}\n[[route]]\npool = \"u\"\n"));
    weir.until("the server is in service", || weir.metric("weir_upstream_servers", "") >= 1.0);

    let proxies = [("weir", weir.http, vec![weir.pid()]), ("nginx", nginx.address, nginx.processes())];
    for (name, address, processes) in &proxies {
        for (kind, open) in [("idle", idle as fn(SocketAddr) -> TcpStream), ("slow", slow)] {
            let before = proportional_kib(processes);
            let connections: Vec<_> = (0..CONNECTIONS).map(|_| open(*address)).collect();
            let mut waits = waits(*address);
            let each = (proportional_kib(processes) - before) / CONNECTIONS as f64;
            println!("connections: {name}, {CONNECTIONS} {kind}: {each:.2} KiB each");
            print_percentiles(&format!("connections: {name}, a GET beside {kind} ones"), "ms", &mut waits);
            drop(connections);
        }
    }
}

/// A connection that had one request and is kept.
fn idle(address: SocketAddr) -> TcpStream {
    let mut client = Client::new(address);
    client.get("test", "/");
    client.into_stream()
}

/// A connection whose request has begun and does not go on.
fn slow(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).expect("connect");
    stream.write_all(b"G").expect("send");
    stream
}

/// How long GETs of another client take, milliseconds.
fn waits(address: SocketAddr) -> Vec<f64> {
    let mut client = Client::new(address);
    let timed = |_| {
        let began = Instant::now();
        client.get("test", "/");
        began.elapsed().as_secs_f64() * 1e3
    };
    (0..GETS).map(timed).collect()
}

fn raise_file_limit() {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit { current: limit.maximum, ..limit };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, raised).expect("raise the file limit");
}
