//! `neighbours`: how much longer a request takes beside VMs of another pool that take all they can get, with limits and
//! without.
//!
//! Turn by turn the bad VMs' processes are stopped and continued, and the neighbour is asked the same in both states.

mod load;
#[path = "../tests/support/mod.rs"]
mod support;

use std::io::Write as _;
use std::time::Instant;

use load::{Client, add_pool, header};
use support::{Weir, kill, launcher_and_vms, print_median};

const ROUNDS: usize = 30;
/// Requests in each state and round.
const REQUESTS: usize = 50;

const LIMITED: &str = "cpu_quota = 0.1\nsend_packets = 1000\nsend_rate = \"1MiB\"";

fn main() {
    let mut image = tempfile::NamedTempFile::new().expect("make a file");
    image.write_all(weir_guest::PROBE).expect("write the image");
    let image = image.path().display();
    for behaviour in ["flood", "spin"] {
        for (what, limits) in [("limited", LIMITED), ("without limits", "")] {
            let mut config = header("");
            let bad = format!(
                "image = \"{image}\"\nargs = [\"{behaviour}\"]\nstart_timeout = \"500ms\"\n[pool.bad.limits]\n{limits}"
            );
            add_pool(&mut config, "bad", &bad, "min = 3\nmax = 3");
            add_pool(&mut config, "good", "image = \"hello\"", "min = 1\nmax = 1");
            let weir = Weir::start(&config);
            (0..4).for_each(|_| drop(weir.logged("vm ready")));
            let mut ratios = ratios(&weir);
            print_median(
                &format!("neighbours: {behaviour}, {what}: p50 beside 3 of them : p50 alone"),
                &mut ratios,
            );
        }
    }
}

/// Of each round.
fn ratios(weir: &Weir) -> Vec<f64> {
    let mut client = Client::new(weir.http);
    client.get("good", "/");
    // All but the good one, which has most likely used the least.
    let (_, vms) = launcher_and_vms(weir.pid());
    let good = vms.iter().copied().min_by_key(|pid| cpu_time(*pid)).expect("there are VMs");
    let mut median = |signal: &str| {
        vms.iter().filter(|pid| **pid != good).for_each(|pid| kill(signal, *pid));
        let mut times: Vec<_> = (0..REQUESTS)
            .map(|_| {
                let begin = Instant::now();
                client.get("good", "/");
                begin.elapsed().as_secs_f64()
            })
            .collect();
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    };
    (0..ROUNDS)
        .map(|_| {
            let alone = median("STOP");
            median("CONT") / alone
        })
        .collect()
}

fn cpu_time(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap_or_default();
    text.split(' ').next().and_then(|nanos| nanos.parse().ok()).unwrap_or(u64::MAX)
}
