//! `start`: from the order to the launcher until READY, as weir itself measures it, and the memory of an idle VM.

#[path = "../tests/support/mod.rs"]
mod support;

use support::{Weir, get, launcher_and_vms, one_pool};

const ROUNDS: usize = 200;

fn main() {
    let weir = Weir::start(&one_pool("hello", "", "min = 0\nmax = 1\nidle_timeout = \"20ms\""));
    let mut times = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        assert_eq!(get(weir.http, "/").status, 200);
        let line = weir.logged("vm ready");
        times.push(line["fields"]["start_ms"].as_f64().expect("start_ms of a ready VM"));
        weir.logged("vm gone");
    }
    support::print_percentiles("start: process spawn to READY", "ms", &mut times);
    drop(weir);

    let weir = Weir::start(&one_pool("hello", "", "min = 8\nmax = 8\nidle_timeout = \"60s\""));
    for _ in 0..8 {
        weir.logged("vm ready");
    }
    let (_, vms) = launcher_and_vms(weir.pid());
    let mut resident: Vec<f64> = vms.iter().map(|pid| rollup(*pid, "Rss:")).collect();
    let mut proportional: Vec<f64> = vms.iter().map(|pid| rollup(*pid, "Pss:")).collect();
    support::print_percentiles("start: RSS of an idle VM's process", "MiB", &mut resident);
    support::print_percentiles("start: PSS of an idle VM's process, 8 alive", "MiB", &mut proportional);
}

/// One line of /proc/PID/smaps_rollup, in MiB.
fn rollup(pid: u32, key: &str) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("read smaps_rollup");
    let line = text.lines().find_map(|line| line.strip_prefix(key)).expect("the line is there");
    line.trim().trim_end_matches(" kB").parse::<f64>().expect("kilobytes") / 1024.0
}
