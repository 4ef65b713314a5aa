//! `warm`: requests per second and latency of one warm VM behind weir, and of the same handler as a native process on
//! loopback, in turn; 1 and 32 keepalive connections. The load generator is wrk.

#[path = "../tests/support/mod.rs"]
mod support;

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use support::{Weir, get, one_pool};

const ROUNDS: usize = 5;

struct Native {
    child: Child,
    address: SocketAddr,
}

impl Native {
    /// Builds and starts the native twin of the `hello` guest.
    fn start() -> Self {
        let guest = Path::new(env!("CARGO_MANIFEST_DIR")).join("guest");
        let status = Command::new(env!("CARGO"))
            .args(["build", "--release", "--locked", "-p", "hello-native"])
            .current_dir(&guest)
            .status()
            .expect("run cargo");
        assert!(status.success(), "build hello-native");
        let mut child = Command::new(guest.join("target/release/hello-native"))
            .env("PORT", "0")
            .stdout(Stdio::piped())
            .spawn()
            .expect("start hello-native");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("stdout is piped")).read_line(&mut line).expect("read");
        let address = line.trim().rsplit(' ').next().and_then(|word| word.parse().ok()).expect("an address");
        Self { child, address }
    }
}

impl Drop for Native {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One wrk run: requests per second, p50 and p99 in milliseconds.
struct Run {
    rate: f64,
    p50: f64,
    p99: f64,
}

fn wrk(address: SocketAddr, connections: usize) -> Run {
    let output = Command::new("wrk")
        .args(["-t1", "-d2s", "--latency", &format!("-c{connections}")])
        .arg(format!("http://{address}/"))
        .output()
        .expect("run wrk");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let after = |key: &str| {
        let line = text.lines().find_map(|line| line.trim().strip_prefix(key));
        line.unwrap_or_else(|| panic!("wrk prints {key}: {text}")).trim().to_owned()
    };
    assert!(!text.contains("Non-2xx"), "only good answers count: {text}");
    Run {
        rate: after("Requests/sec:").parse().expect("a rate"),
        p50: milliseconds(&after("50%")),
        p99: milliseconds(&after("99%")),
    }
}

fn milliseconds(text: &str) -> f64 {
    let (number, scale) = if let Some(number) = text.strip_suffix("us") {
        (number, 1e-3)
    } else if let Some(number) = text.strip_suffix("ms") {
        (number, 1.0)
    } else {
        (text.trim_end_matches('s'), 1e3)
    };
    number.parse::<f64>().expect("a duration") * scale
}

fn main() {
    let weir = Weir::start(&one_pool("hello", "", "min = 1\nmax = 1\nidle_timeout = \"60s\""));
    let native = Native::start();
    assert_eq!(get(weir.http, "/").status, 200);
    for connections in [1, 32] {
        let (mut rates, mut natives) = (Vec::new(), Vec::new());
        let (mut p50, mut p99, mut ratio) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let ours = wrk(weir.http, connections);
            let theirs = wrk(native.address, connections);
            ratio.push(ours.rate / theirs.rate);
            rates.push(ours.rate);
            natives.push(theirs.rate);
            p50.push(ours.p50);
            p99.push(ours.p99);
        }
        println!("warm: {connections} connections, medians of {ROUNDS} interleaved rounds");
        support::print_median("  requests/s through weir to one VM", &mut rates);
        support::print_median("  requests/s of the native process", &mut natives);
        support::print_median("  ratio", &mut ratio);
        support::print_median("  p50 through weir, ms", &mut p50);
        support::print_median("  p99 through weir, ms", &mut p99);
    }
}
