//! `throughput`: requests and bytes per second of one warm VM, with and without the network device's offloads.
//!
//! The test guest `probe` is in both pools, of the same source. The one without offloads is built here, with a flag by
//! which its driver does not ask for them: no checksums left to the host, no segmentation, no merged buffers.

mod load;
#[path = "../tests/support/mod.rs"]
mod support;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use load::{Client, add_pool, header, wrk};
use support::Weir;

const ROUNDS: usize = 3;
const GIB: usize = 1 << 30;
const TARGET: &str = "x86_64-unknown-linux-gnu";

fn main() {
    let images = tempfile::tempdir().expect("make a temporary directory");
    let offloads = images.path().join("probe");
    std::fs::write(&offloads, weir_guest::PROBE).expect("write the image");
    let mut config = header("");
    let scale = "min = 1\nmax = 1\nidle_timeout = \"60s\"";
    for (name, image) in [("offloads", &offloads), ("plain", &plain_probe())] {
        add_pool(&mut config, name, &format!("image = \"{}\"", image.display()), scale);
    }
    let weir = Weir::start(&config);
    let pools = [(); 2].map(|()| ready(&weir));
    for (path, connections) in [("/", 1), ("/", 32), ("/bytes?n=65536", 1), ("/bytes?n=1048576", 8)] {
        requests(&weir, path, connections);
    }
    gibibyte(&weir, &pools);
}

/// The next VM that is ready: its pool and its address.
fn ready(weir: &Weir) -> (String, SocketAddr) {
    let line = weir.logged("vm ready");
    let field = |name: &str| line["fields"][name].as_str().expect("a string").to_owned();
    (field("pool"), field("address").parse().expect("a socket address"))
}

/// The `probe` image that does not use offloads.
fn plain_probe() -> PathBuf {
    let guest = Path::new(env!("CARGO_MANIFEST_DIR")).join("guest");
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("plain");
    let flags = std::fs::read_to_string(guest.join("image-flags.txt")).expect("read the images' flags");
    let flags: Vec<&str> = flags.lines().chain(["--cfg=weir_plain_net"]).collect();
    let status = Command::new(env!("CARGO"))
        .args(["build", "--release", "--locked", "--target", TARGET, "-p", "probe"])
        .current_dir(&guest)
        .env("CARGO_TARGET_DIR", &target)
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"))
        .status()
        .expect("run cargo");
    assert!(status.success(), "build probe without offloads");
    target.join(TARGET).join("release/probe")
}

fn requests(weir: &Weir, path: &str, connections: usize) {
    let (mut with, mut without, mut ratio) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let offloads = wrk(weir.http, "offloads", path, connections).rate;
        let plain = wrk(weir.http, "plain", path, connections).rate;
        with.push(offloads);
        without.push(plain);
        ratio.push(offloads / plain);
    }
    println!("throughput: GET {path}, {connections} connections, medians of {ROUNDS} interleaved rounds");
    support::print_median("  requests/s with offloads", &mut with);
    support::print_median("  requests/s without", &mut without);
    support::print_median("  ratio", &mut ratio);
}

fn gibibyte(weir: &Weir, pools: &[(String, SocketAddr)]) {
    for (pool, address) in pools {
        let (mut proxied, mut direct) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let begin = Instant::now();
            let length = Client::new(weir.http).get(pool, &format!("/bytes?n={GIB}"));
            assert_eq!(length, GIB);
            proxied.push(gigabits(begin.elapsed().as_secs_f64()));
            direct.push(gigabits(without_proxy(weir, *address)));
        }
        println!("throughput: 1 GiB from one VM, {pool}, medians of {ROUNDS} rounds");
        support::print_median("  Gbit/s through weir", &mut proxied);
        support::print_median("  Gbit/s directly from the VM", &mut direct);
    }
}

/// Seconds that curl took for it in weir's network namespace.
fn without_proxy(weir: &Weir, address: SocketAddr) -> f64 {
    let output = Command::new("nsenter")
        .arg(format!("--net=/proc/{}/ns/net", weir.pid()))
        .args([
            "curl",
            "-sS",
            "-o",
            "/dev/null",
            "--max-time",
            "60",
            "-w",
            "%{http_code} %{size_download} %{time_total}",
        ])
        .arg(format!("http://{address}/bytes?n={GIB}"))
        .output()
        .expect("run curl");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let seconds = text.strip_prefix(&format!("200 {GIB} ")).unwrap_or_else(|| panic!("a GiB: {output:?}"));
    seconds.parse().expect("seconds")
}

fn gigabits(seconds: f64) -> f64 {
    GIB as f64 * 8.0 / seconds / 1e9
}
