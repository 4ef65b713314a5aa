//! `start`: from the order to start a VM until its READY, as weir itself measures it; by clone.

#[path = "../tests/support/mod.rs"]
mod support;

use support::{Weir, get, one_pool};

const ROUNDS: usize = 200;

fn main() {
    let weir = Weir::start(&one_pool("hello", "", "min = 0\nmax = 1\nidle_timeout = \"20ms\""));
    weir.logged("template ready");
    let mut times = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        assert_eq!(get(weir.http, "/").status, 200);
        let line = weir.logged("vm ready");
        times.push(line["fields"]["start_ms"].as_f64().expect("start_ms of a ready VM"));
        weir.logged("vm stopped");
    }
    support::print_percentiles("start: order to READY, by clone", "ms", &mut times);
}
