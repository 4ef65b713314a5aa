//! `many`: 5,000 idle clones alive on one host, and what it then takes to wake one more from zero.
//!
//! They come up in batches, as requests would bring them: one request per VM, all held at the same time. weir needs
//! three file descriptors per VM, so the hard limit (`ulimit -Hn`) has to be 20,000.

mod load;
#[path = "../tests/support/mod.rs"]
mod support;

use std::io::Write as _;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use load::{Client, add_pool, header};
use support::{Weir, launcher_and_vms};

const POOLS: usize = 50;
const PER_POOL: usize = 100;
const ROUNDS: usize = 200;
/// How long the whole ascent may take.
const LIMIT: Duration = Duration::from_secs(300);

fn main() {
    let mut config = header("memory = \"128GiB\"\nmax_vms = 6000\nnetwork = \"10.64.0.0/12\"");
    let names: Vec<String> = (0..POOLS).map(|number| format!("p{number}")).collect();
    let pool = "image = \"hello\"\nsoft_limit = 1\nhard_limit = 1\nhealth = { path = \"/\" }";
    let scale = format!("min = 0\nmax = {PER_POOL}\nidle_timeout = \"1h\"\npanic_window = \"10ms\"");
    names.iter().for_each(|name| add_pool(&mut config, name, pool, &scale));
    let one = "image = \"hello\"\nhealth = { path = \"/\" }";
    add_pool(&mut config, "one", one, "min = 0\nmax = 1\nidle_timeout = \"20ms\"");
    let mut weir = Weir::start(&config);
    (0..=POOLS).for_each(|_| drop(weir.logged("template ready")));
    wake(&mut weir, "with none alive");
    let before = available();
    let begin = Instant::now();
    for (number, name) in names.iter().enumerate() {
        ascend(&mut weir, name);
        if (number + 1) % 10 == 0 {
            let alive = weir.metric("weir_vm_instances", "state=\"ready\"");
            let each = (before - available()) / alive;
            println!(
                "many: {alive} alive after {:.1} s, {each:.3} MiB of MemAvailable each",
                begin.elapsed().as_secs_f64()
            );
        }
        assert!(begin.elapsed() < LIMIT, "too slow: {} VMs after {LIMIT:?}", number * PER_POOL);
    }
    for kind in ["prefork", "clone", "cold"] {
        let count = weir.metric("weir_vm_start_duration_seconds_count", &format!("kind=\"{kind}\""));
        println!("many: started as {kind}: {count}");
    }
    println!("many: clones that failed: {}", weir.metric("weir_vm_clone_fallbacks_total", ""));
    wake(&mut weir, "with these alive");
    let (_, processes) = launcher_and_vms(weir.pid());
    println!("many: {} processes; pools that do not answer: {}", processes.len(), visit(&weir, &names));
    let begin = Instant::now();
    weir.signal("TERM");
    weir.wait_for("the end", |line| line["fields"]["message"] == "stopped");
    println!("many: all stopped within {:.1} s", begin.elapsed().as_secs_f64());
}

/// Has a pool start all its VMs by as many requests at once, which then are given up: a connection that weir kept to each
/// VM would take a fourth descriptor.
fn ascend(weir: &mut Weir, name: &str) {
    let request = format!("GET /sleep?ms=30000 HTTP/1.1\r\nhost: {name}\r\n\r\n");
    let connections: Vec<_> = (0..PER_POOL)
        .map(|_| {
            let mut stream = TcpStream::connect(weir.http).expect("connect");
            stream.write_all(request.as_bytes()).expect("send");
            stream
        })
        .collect();
    (0..PER_POOL).for_each(|_| drop(weir.logged("vm ready")));
    drop(connections);
    (0..PER_POOL).for_each(|_| drop(weir.access_line()));
}

/// Wakes the pool `one` again and again.
fn wake(weir: &mut Weir, when: &str) {
    let mut times = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let begin = Instant::now();
        Client::new(weir.http).get("one", "/");
        times.push(begin.elapsed().as_secs_f64() * 1e3);
        weir.logged("vm stopped");
        weir.access_line();
    }
    support::print_percentiles(&format!("many: wake from zero {when}"), "ms", &mut times);
}

/// Asks every pool once more; returns how many do not answer.
fn visit(weir: &Weir, names: &[String]) -> usize {
    let address = weir.http;
    let answers = |name| std::panic::catch_unwind(|| Client::new(address).get(name, "/")).is_ok();
    names.iter().filter(|name| !answers(name)).count()
}

/// MemAvailable of this machine, MiB.
fn available() -> f64 {
    let text = std::fs::read_to_string("/proc/meminfo").expect("read meminfo");
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:")).expect("the line is there");
    line.trim().trim_end_matches(" kB").parse::<f64>().expect("kilobytes") / 1024.0
}
