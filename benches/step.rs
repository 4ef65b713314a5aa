//! `step`: a pool at zero gets 200 requests a second of 50 ms each, from one moment to the next: how long until their wait
//! for a VM is short.
//!
//! The load is open: each request is sent when its time has come, whatever became of those before. Waits are weir's own
//! (`queue_ms` of the access log), which is what a client's latency has on top of the work.

mod load;
#[path = "../tests/support/mod.rs"]
mod support;

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use load::{Client, add_pool, header};
use support::{Weir, print_percentiles};

const ROUNDS: usize = 5;
/// Requests per second.
const RATE: u32 = 200;
const SECONDS: u32 = 4;
/// More than are ever in flight.
const CLIENTS: usize = 64;
/// A wait of which no more than one in a hundred is to be longer, milliseconds.
const SHORT: f64 = 50.0;

fn main() {
    for soft_limit in [1, 4] {
        let mut config = header("");
        let pool = format!(
            "image = \"hello\"\nhealth = {{ path = \"/\" }}\nsoft_limit = {soft_limit}\nhard_limit = {soft_limit}"
        );
        // Windows as short as the timeout: each step is to begin at zero.
        let scale = "min = 0\nmax = 64\nidle_timeout = \"100ms\"\nmax_down_rate = 1000.0\n\
                     stable_window = \"100ms\"\npanic_window = \"100ms\"";
        add_pool(&mut config, "p", &pool, scale);
        let mut weir = Weir::start(&config);
        weir.logged("template ready");
        let (mut until_short, mut all) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let mut waits = step(&mut weir);
            until_short.push(time_until_short(&mut waits) * 1e3);
            all.extend(waits.into_iter().map(|(_, wait)| wait));
            weir.until("the pool is at zero", || weir.metric("weir_vm_instances", "") == 0.0);
        }
        let what = format!("step: 0 -> {RATE}/s of 50 ms, {soft_limit} per VM");
        print_percentiles(&format!("{what}: wait for a VM"), "ms", &mut all);
        print_percentiles(&format!("{what}: until p99 of the wait < {SHORT} ms"), "ms", &mut until_short);
        let starts = weir.metric("weir_vm_start_duration_seconds_count", "") / ROUNDS as f64;
        println!("{what}: {starts} VMs started each time");
    }
}

/// One step: when each request came, seconds, and how long it waited, milliseconds.
#[expect(clippy::disallowed_methods, reason = "a request has its time, which is no event")]
fn step(weir: &mut Weir) -> Vec<(f64, f64)> {
    let count = (RATE * SECONDS) as usize;
    let (next, address) = (AtomicUsize::new(0), weir.http);
    // Connected before, so that only the requests make the step.
    let clients: Vec<_> = (0..CLIENTS).map(|_| Client::new(address)).collect();
    let begin = Instant::now();
    let send = |mut client: Client| {
        loop {
            let number = next.fetch_add(1, Relaxed);
            if number >= count {
                return;
            }
            let due = Duration::from_secs(1) / RATE * u32::try_from(number).expect("few requests");
            thread::sleep(due.saturating_sub(begin.elapsed()));
            client.get("p", "/sleep?ms=50");
        }
    };
    let lines = thread::scope(|scope| {
        for client in clients {
            scope.spawn(|| send(client));
        }
        (0..count).map(|_| weir.access_line()).collect::<Vec<_>>()
    });
    let number = |line: &serde_json::Value, key: &str| line[key].as_f64().expect("a number");
    let mut waits: Vec<_> = lines.iter().map(|line| (number(line, "ts"), number(line, "queue_ms"))).collect();
    waits.sort_by(|a, b| a.0.total_cmp(&b.0));
    let first = waits[0].0;
    waits.iter().map(|(at, wait)| (at - first, *wait)).collect()
}

/// Seconds after which the p99 of all further waits is short.
fn time_until_short(waits: &mut [(f64, f64)]) -> f64 {
    let is_short = |rest: &[(f64, f64)]| {
        let long = rest.iter().filter(|(_, wait)| *wait >= SHORT).count();
        long * 100 <= rest.len()
    };
    let first = (0..waits.len()).find(|from| is_short(&waits[*from..]));
    first.map_or(f64::NAN, |from| waits[from].0)
}
