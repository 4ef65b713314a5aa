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
use support::{Weir, kill, launcher_and_vms, print_percentiles};

const ROUNDS: usize = 30;
/// Requests in each state and round.
const REQUESTS: usize = 100;
const BAD: usize = 3;

const LIMITED: &str = "cpu_quota = 0.1\nsend_packets = 1000\nsend_rate = \"1MiB\"";
/// Whoever is stopped half of the time, or starved by limits, might miss its checks.
const UNCHECKED: &str = "interval = \"1h\"";

fn main() {
    let mut image = tempfile::NamedTempFile::new().expect("make a file");
    image.write_all(weir_guest::PROBE).expect("write the image");
    let image = image.path().display();
    for behaviour in ["flood", "spin-on-request"] {
        for (what, limits) in [("limited", LIMITED), ("without limits", "")] {
            let mut config = header("");
            let bad = format!(
                "image = \"{image}\"\nargs = [\"{behaviour}\"]\nsoft_limit = 1\nhard_limit = 1\n\
                 [pool.bad.health]\n{UNCHECKED}\n[pool.bad.limits]\n{limits}"
            );
            add_pool(&mut config, "bad", &bad, &format!("min = {BAD}\nmax = {BAD}"));
            add_pool(&mut config, "good", "image = \"hello\"", "min = 0\nmax = 1");
            let weir = Weir::start(&config);
            let [mut alone, mut beside] = times(&weir, behaviour);
            let name = format!("neighbours: {behaviour}, {what}");
            print_percentiles(&format!("{name}: while they are stopped"), "ms", &mut alone);
            print_percentiles(&format!("{name}: beside {BAD} of them"), "ms", &mut beside);
        }
    }
}

/// Milliseconds that requests took while the bad VMs were stopped, and while they were not.
fn times(weir: &Weir, behaviour: &str) -> [Vec<f64>; 2] {
    (0..BAD).for_each(|_| drop(weir.logged("vm ready")));
    // Those of both pools: making one takes time and a process.
    weir.until_templates(2);
    let (_, bad) = launcher_and_vms(weir.pid());
    assert_eq!(bad.len(), BAD, "VMs of the bad pool");
    let mut waiting: Vec<_> = (0..BAD).map(|_| Client::new(weir.http)).collect();
    if behaviour != "flood" {
        waiting.iter_mut().for_each(|client| client.send("bad", "/"));
        weir.until("all spin", || weir.metric("weir_http_requests_in_flight", "") == BAD as f64);
    }
    let mut client = Client::new(weir.http);
    client.get("good", "/");
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        for (times, signal) in times.iter_mut().zip(["STOP", "CONT"]) {
            bad.iter().for_each(|pid| kill(signal, *pid));
            times.extend((0..REQUESTS).map(|_| {
                let begin = Instant::now();
                client.get("good", "/");
                begin.elapsed().as_secs_f64() * 1000.0
            }));
        }
    }
    assert_eq!(weir.metric("weir_vm_exits_total", "pool=\"bad\""), 0.0, "all of them went on");
    times
}
