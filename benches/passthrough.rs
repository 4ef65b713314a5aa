//! `passthrough`: CPU time per request of weir, nginx and haproxy in front of one nginx (for weir a server outside), 1 KiB,
//! 64 keepalive connections, in turn. The load generator is wrk.
//!
//! It is what the proxy's own process spends, in user and in kernel mode; the others may use the second CPU meanwhile.
//! Each has its access log in a file, weir in JSON, nginx in its `combined` format; haproxy has none.

mod load;
#[path = "../tests/support/mod.rs"]
mod support;

use load::peer::{Peer, cpu_seconds, free};
use load::{header, wrk};
use support::{Weir, print_median};

const ROUNDS: usize = 9;
const CONNECTIONS: usize = 64;

fn main() {
    let directory = tempfile::tempdir().expect("make a directory");
    let [server, by_nginx, by_haproxy] = [free(), free(), free()];
    let body = "x".repeat(1024);
    let serve =
        format!("server {{ access_log off; listen {server}; location / {{ return 200 \"{body}\"; }} }}");
    let upstream = Peer::nginx(directory.path(), "server", server, &serve);
    let pass = format!(
        "upstream u {{ server {server}; keepalive 128; keepalive_requests 1000000000; }}\n\
         server {{ listen {by_nginx}; location / {{ proxy_pass http://u; proxy_http_version 1.1; proxy_set_header Connection \"\"; }} }}"
    );
    let nginx = Peer::nginx(directory.path(), "proxy", by_nginx, &pass);
    let haproxy = Peer::haproxy(directory.path(), by_haproxy, upstream.address);
    let mut config = header("");
    let addresses =
        format!("kind = \"external\"\naddresses = [\"{server}\"]\nsoft_limit = 128\nhard_limit = 128");
    let log = directory.path().join("weir.access");
    config
        .push_str(&format!("[access_log]\nfile = {log:?}\n[pool.u]\n{addresses}\n[[route]]\npool = \"u\"\n"));
    let weir = Weir::start(&config);
    weir.until("the server is in service", || weir.metric("weir_upstream_servers", "") >= 1.0);

    let proxies = [
        ("weir", weir.http, vec![weir.pid()]),
        ("nginx", nginx.address, nginx.processes()),
        ("haproxy", haproxy.address, haproxy.processes()),
    ];
    let mut micros = [Vec::new(), Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        for ((_, address, processes), micros) in proxies.iter().zip(&mut micros) {
            let before = cpu_seconds(processes);
            let requests = wrk(*address, "test", "/", CONNECTIONS).requests;
            micros.push((cpu_seconds(processes) - before) * 1e6 / requests);
        }
    }
    let mut ratios: Vec<_> = micros[0].iter().zip(&micros[1]).map(|(weir, nginx)| weir / nginx).collect();
    for ((name, ..), micros) in proxies.iter().zip(&mut micros) {
        print_median(
            &format!("passthrough: 1 KiB, {CONNECTIONS} connections: {name}, us of CPU per request"),
            micros,
        );
    }
    print_median("passthrough: weir : nginx, median of the rounds' ratios", &mut ratios);
}
