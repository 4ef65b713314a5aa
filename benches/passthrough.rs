//! `passthrough`: CPU time per request of weir, nginx and haproxy in front of one nginx (for weir a server outside), 1 KiB,
//! 64 keepalive connections, in turn. The load generator is wrk.
//!
//! It is what the proxy's own process spends, in user and in kernel mode; the others may use the second CPU meanwhile.
//! Each has its access log: weir its lines on a pipe, nginx its `combined` ones in a file, haproxy none.

mod load;
#[path = "../tests/support/mod.rs"]
mod support;

use std::fs;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use load::{header, wrk};
use support::{Weir, children, print_median};

const ROUNDS: usize = 9;
const CONNECTIONS: usize = 64;
const PATIENCE: Duration = Duration::from_secs(5);

/// A server that is no weir; it ends when dropped.
struct Peer {
    child: Child,
    address: SocketAddr,
}

impl Peer {
    /// Starts `command`, which listens on `address`.
    fn start(command: &mut Command, address: SocketAddr) -> Self {
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::inherit()).spawn();
        let peer = Self { child: child.expect("start a server: scripts/deps.sh bench"), address };
        let deadline = Instant::now() + PATIENCE;
        while let Err(error) = TcpStream::connect(address) {
            assert!(error.kind() == ErrorKind::ConnectionRefused && Instant::now() < deadline, "{error}");
            std::thread::yield_now();
        }
        peer
    }

    /// nginx with these lines in its `http` block, its files in `directory`.
    fn nginx(directory: &Path, name: &str, address: SocketAddr, http: &str) -> Self {
        let path = directory.join(format!("{name}.conf"));
        let place = directory.display();
        let config = format!(
            "daemon off;\nuser root;\nworker_processes 1;\npid {place}/{name}.pid;\nerror_log {place}/{name}.error;\n\
             events {{ worker_connections 1024; }}\nhttp {{\nkeepalive_requests 1000000000;\n\
             access_log {place}/{name}.access;\n{http}\n}}\n"
        );
        fs::write(&path, config).expect("write nginx's configuration");
        Self::start(Command::new("nginx").arg("-c").arg(&path), address)
    }

    fn haproxy(directory: &Path, address: SocketAddr, server: SocketAddr) -> Self {
        let path = directory.join("haproxy.cfg");
        let config = format!(
            "global\n  nbthread 1\ndefaults\n  mode http\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n\
             frontend f\n  bind {address}\n  default_backend b\nbackend b\n  http-reuse always\n  server s {server}\n"
        );
        fs::write(&path, config).expect("write haproxy's configuration");
        Self::start(Command::new("haproxy").arg("-f").arg(&path), address)
    }

    /// Its process, and those that it started to serve.
    fn processes(&self) -> Vec<u32> {
        let own = self.child.id();
        children(own).into_iter().chain([own]).collect()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // To all of them: nginx's workers would outlive it.
        self.processes().into_iter().for_each(|pid| drop(Command::new("kill").arg(pid.to_string()).status()));
        let _ = self.child.wait();
    }
}

/// A port that is free now.
fn free() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
    listener.local_addr().expect("it is bound")
}

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
    config.push_str(&format!("[pool.u]\n{addresses}\n[[route]]\npool = \"u\"\n"));
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

/// What all threads of these processes have spent on a CPU.
fn cpu_seconds(processes: &[u32]) -> f64 {
    let of_thread = |task: fs::DirEntry| {
        let text = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
        text.split(' ').next().and_then(|nanos| nanos.parse::<f64>().ok()).unwrap_or(0.0)
    };
    let of = |pid: &u32| -> f64 {
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("the proxy lives");
        tasks.flatten().map(of_thread).sum()
    };
    processes.iter().map(of).sum::<f64>() / 1e9
}
