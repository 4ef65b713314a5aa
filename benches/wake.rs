//! `wake`: a pool at zero, one GET, time to the last byte; 200 rounds through the whole proxy.

#[path = "../tests/support/mod.rs"]
mod support;

use std::time::Instant;

use support::{Weir, get, one_pool};

const ROUNDS: usize = 200;

fn main() {
    let weir = Weir::start(&one_pool("hello", "", "min = 0\nmax = 1\nidle_timeout = \"20ms\""));
    let mut times = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let begin = Instant::now();
        let answer = get(weir.http, "/");
        times.push(begin.elapsed().as_secs_f64() * 1e3);
        assert_eq!(answer.status, 200, "{answer:?}");
        // At zero again: its process is reaped.
        weir.logged("vm gone");
    }
    support::print_percentiles("wake: GET from zero to last byte", "ms", &mut times);
}
