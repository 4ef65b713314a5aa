//! Other people's servers, to measure weir beside.

use std::fs;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::children;

const PATIENCE: Duration = Duration::from_secs(5);

/// A server that is no weir; it ends when dropped.
pub struct Peer {
    child: Child,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Peer {
    /// Starts `command`, which listens on `address`.
    pub fn start(command: &mut Command, address: SocketAddr) -> Self {
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
    pub fn nginx(directory: &Path, name: &str, address: SocketAddr, http: &str) -> Self {
        let path = directory.join(format!("{name}.conf"));
        let place = directory.display();
        let config = format!(
            "daemon off;\nuser root;\nworker_processes 1;\npid {place}/{name}.pid;\nerror_log {place}/{name}.error;\n\
             events {{ worker_connections 32768; }}\nhttp {{\nkeepalive_requests 1000000000;\n\
             access_log {place}/{name}.access;\n{http}\n}}\n"
        );
        fs::write(&path, config).expect("write nginx's configuration");
        Self::start(Command::new("nginx").arg("-c").arg(&path), address)
    }

    pub fn haproxy(directory: &Path, address: SocketAddr, server: SocketAddr) -> Self {
        let path = directory.join("haproxy.cfg");
        let config = format!(
            "global\n  nbthread 1\ndefaults\n  mode http\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n\
             frontend f\n  bind {address}\n  default_backend b\nbackend b\n  http-reuse always\n  server s {server}\n"
        );
        fs::write(&path, config).expect("write haproxy's configuration");
        Self::start(Command::new("haproxy").arg("-f").arg(&path), address)
    }

    /// Its process, and those that it started to serve.
    pub fn processes(&self) -> Vec<u32> {
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
pub fn free() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
    listener.local_addr().expect("it is bound")
}

/// What all threads of these processes have spent on a CPU.
pub fn cpu_seconds(processes: &[u32]) -> f64 {
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

/// What these processes have of the machine's memory, KiB; what they share is shared among them.
pub fn proportional_kib(processes: &[u32]) -> f64 {
    let of = |pid: &u32| -> f64 {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("the proxy lives");
        let pss = text.lines().find_map(|line| line.strip_prefix("Pss:")?.trim().strip_suffix(" kB"));
        pss.and_then(|kib| kib.trim().parse().ok()).expect("smaps_rollup says how much")
    };
    processes.iter().map(of).sum()
}
