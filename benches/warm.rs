//! `warm`: requests per second and latency of one warm VM behind weir, and of the same handler as a native process on
//! loopback, in turn; 1 and 32 keepalive connections. The load generator is wrk.

mod load;
#[path = "../tests/support/mod.rs"]
mod support;

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use load::wrk;
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

fn main() {
    let weir = Weir::start(&one_pool("hello", "", "min = 1\nmax = 1\nidle_timeout = \"60s\""));
    let native = Native::start();
    assert_eq!(get(weir.http, "/").status, 200);
    for connections in [1, 32] {
        let (mut rates, mut natives) = (Vec::new(), Vec::new());
        let (mut p50, mut p99, mut ratio) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let ours = wrk(weir.http, "test", "/", connections);
            let theirs = wrk(native.address, "test", "/", connections);
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
