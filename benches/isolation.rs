//! `isolation`: what it costs a request that its VM goes back to its snapshot after each request, or connection.
//!
//! All pools are in one weir, and their rounds interleaved. Times are of one sequential client: back to back, so that
//! the way back to the snapshot is in the next request's way, and with pauses, so that it is not.

mod load;
#[path = "../tests/support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

use load::{Client, add_pool, header, wrk};
use support::Weir;

const ROUNDS: usize = 10;
const REQUESTS: usize = 200;
const PAUSE: Duration = Duration::from_millis(3);

/// Pools: isolation, and VMs at most.
const POOLS: [(&str, &str, u32); 5] = [
    ("vm", "vm", 8),
    ("connection", "connection", 8),
    ("request", "request", 8),
    ("connection-1", "connection", 1),
    ("request-1", "request", 1),
];

/// How the client behaves.
#[derive(Clone, Copy)]
enum Habit {
    /// One connection, back to back.
    BackToBack,
    /// One connection, a pause before each request.
    Paced,
    /// A connection for each request, back to back.
    Connections,
}

fn main() {
    let mut config = header("");
    for (name, isolation, max) in POOLS {
        let pool = format!("image = \"hello\"\nisolation = \"{isolation}\"\nhealth = {{ path = \"/\" }}");
        add_pool(&mut config, name, &pool, &format!("min = 0\nmax = {max}\nidle_timeout = \"60s\""));
    }
    let weir = Weir::start(&config);
    POOLS.iter().for_each(|_| drop(weir.logged("template ready")));
    let habits = [
        ("one connection, back to back", Habit::BackToBack),
        ("one connection, 3 ms before each request", Habit::Paced),
        ("a connection per request, back to back", Habit::Connections),
    ];
    for (what, habit) in habits {
        println!("isolation: {what}; {ROUNDS} interleaved rounds of {REQUESTS}");
        latencies(&weir, habit);
    }
    throughput(&weir);
    println!("isolation: resets: {}", weir.metric("weir_vm_resets_total", ""));
    let took = weir.metric("weir_vm_reset_duration_seconds_sum", "");
    let count = weir.metric("weir_vm_reset_duration_seconds_count", "");
    println!("isolation: mean time from the order to reset to READY: {:.3} ms", took / count * 1e3);
}

fn latencies(weir: &Weir, habit: Habit) {
    let mut times = POOLS.map(|_| Vec::new());
    let mut differences = POOLS.map(|_| Vec::new());
    for round in 0..=ROUNDS {
        let mut medians = Vec::new();
        for ((name, ..), times) in POOLS.iter().zip(&mut times) {
            let mut of_round = measure(weir, name, habit);
            of_round.sort_by(f64::total_cmp);
            medians.push(of_round[REQUESTS / 2]);
            // The first round starts VMs.
            if round > 0 {
                times.append(&mut of_round);
            }
        }
        if round > 0 {
            let added = medians.iter().map(|median| median - medians[0]);
            differences.iter_mut().zip(added).for_each(|(list, added)| list.push(added));
        }
    }
    for (index, (name, _, max)) in POOLS.iter().enumerate() {
        support::print_percentiles(&format!("  {name}, at most {max} VMs"), "ms", &mut times[index]);
        if index > 0 {
            support::print_median("    p50 above \"vm\", median of rounds, ms", &mut differences[index]);
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the pause is the client's, and nothing is waited for")]
fn measure(weir: &Weir, pool: &str, habit: Habit) -> Vec<f64> {
    let mut client = Client::new(weir.http);
    let one = |_| {
        if matches!(habit, Habit::Paced) {
            std::thread::sleep(PAUSE);
        }
        let begin = Instant::now();
        if matches!(habit, Habit::Connections) {
            client = Client::new(weir.http);
        }
        client.get(pool, "/");
        begin.elapsed().as_secs_f64() * 1e3
    };
    (0..REQUESTS).map(one).collect()
}

fn throughput(weir: &Weir) {
    let pools = &POOLS[..3];
    let mut rates = pools.iter().map(|_| Vec::new()).collect::<Vec<_>>();
    for _ in 0..3 {
        for ((name, ..), rates) in pools.iter().zip(&mut rates) {
            rates.push(wrk(weir.http, name, "/", 8).rate);
        }
    }
    println!("isolation: 8 connections, at most 8 VMs, medians of 3 interleaved rounds");
    for ((name, ..), rates) in pools.iter().zip(&mut rates) {
        support::print_median(&format!("  requests/s, {name}"), rates);
    }
}
