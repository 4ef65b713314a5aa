//! What a TAP costs: made anew, taken from the idle ones, given back. p50 and p99 of each, in one run.
//!
//! `cargo bench -p weir-net`; in a private namespace of its own, as root or not.

use std::env;
use std::error::Error;
use std::time::{Duration, Instant};

use weir_net::namespace;
use weir_net::tap::{TapLink, TapPool};

/// TAPs made; also how often one is taken and given back.
const ROUNDS: usize = 500;

fn main() -> Result<(), Box<dyn Error>> {
    // Test runners start this too, to list or run tests: it has none.
    if !env::args().any(|argument| argument == "--bench") {
        return Ok(());
    }
    namespace::become_user_root()?;
    let private = namespace::enter_private()?;
    let pool = TapPool::new(&private, "10.88.0.0/16".parse()?, 1500)?;

    let mut create = Vec::with_capacity(ROUNDS);
    let mut taps: Vec<TapLink> = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let start = Instant::now();
        taps.push(pool.acquire()?);
        create.push(start.elapsed());
    }
    let mut release = Vec::with_capacity(ROUNDS);
    for tap in taps.drain(..) {
        let start = Instant::now();
        drop(tap);
        release.push(start.elapsed());
    }
    let mut reuse = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let start = Instant::now();
        taps.push(pool.acquire()?);
        reuse.push(start.elapsed());
    }
    for (what, times) in [("create", create), ("release", release), ("reuse", reuse)] {
        let (p50, p99) = percentiles(times);
        println!("tap {what:<8} p50 {p50:>10.1?}  p99 {p99:>10.1?}  n {ROUNDS}");
    }
    Ok(())
}

/// The median and the 99th percentile.
fn percentiles(mut times: Vec<Duration>) -> (Duration, Duration) {
    times.sort_unstable();
    let at = |percent: usize| times[(times.len() * percent / 100).min(times.len() - 1)];
    (at(50), at(99))
}
