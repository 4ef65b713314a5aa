//! `choice`: what a request to a warm VM costs the pool: choose, take a lease, give it back.
//!
//! The pools are real ones on a launcher whose VMs do nothing. Rounds of the sizes are interleaved.

use std::hint::black_box;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use futures::FutureExt;
use prometheus::Registry;
use weir_pool::fake::{self, Boot, FakeLauncher, Script};
use weir_pool::{Caller, Lease, Pool, PoolMetrics, Pools};

const SIZES: [u32; 3] = [10, 1000, 10_000];
const HARD_LIMIT: u32 = 64;
const ROUNDS: usize = 15;
const OPERATIONS: u32 = 100_000;
const THREADS: u32 = 8;

struct Bench {
    vms: u32,
    pools: Pools,
    caller: Caller,
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.expect("start the runtime");
    let benches: Vec<_> = SIZES.iter().map(|vms| runtime.block_on(Bench::new(*vms))).collect();
    compare(&benches, "empty, 1 thread", |bench| bench.operations(1));
    compare(&benches, "empty, 8 threads", |bench| bench.operations(THREADS));
    for percent in [50, 99] {
        let held: Vec<Vec<Lease>> = benches.iter().map(|bench| bench.fill(percent)).collect();
        compare(&benches, &format!("{percent} % of all places taken, 1 thread"), |bench| bench.operations(1));
        drop(held);
    }
}

fn compare(benches: &[Bench], what: &str, run: impl Fn(&Bench) -> Duration) {
    let mut nanos = vec![Vec::new(); benches.len()];
    for _ in 0..ROUNDS {
        for (bench, nanos) in benches.iter().zip(&mut nanos) {
            nanos.push(run(bench).as_nanos() as f64 / f64::from(OPERATIONS));
        }
    }
    for (bench, nanos) in benches.iter().zip(&mut nanos) {
        nanos.sort_by(f64::total_cmp);
        let (least, median) = (nanos[0], nanos[nanos.len() / 2]);
        println!("choice: {what}, {} VMs: median {median:.0} ns, least {least:.0} ns", bench.vms);
    }
}

impl Bench {
    async fn new(vms: u32) -> Self {
        let mut pool = fake::pool("p");
        (pool.scale.min, pool.scale.max) = (vms, vms);
        (pool.soft_limit, pool.hard_limit) = (HARD_LIMIT, HARD_LIMIT);
        let mut config = fake::config([pool]);
        (config.host.max_vms, config.host.memory, config.host.max_starts) = (vms, u64::MAX, vms);
        let metrics = PoolMetrics::register(&Registry::new()).expect("nothing is registered yet");
        let launcher = FakeLauncher::new(Script::boot(Boot::Ready(Duration::ZERO)));
        let pools = Pools::start(&config, launcher, metrics).expect("the host has room");
        let mut instances = pools.get("p").expect("it is configured").instances();
        instances.wait_for(|now| now.ready == vms).await.expect("the pool lives");
        Self { vms, pools, caller: Caller::anonymous() }
    }

    fn pool(&self) -> &Arc<Pool> {
        self.pools.get("p").expect("it is configured")
    }

    fn lease(&self) -> Lease {
        self.pool().lease_for(&self.caller).now_or_never().expect("there is room").expect("it is open")
    }

    fn fill(&self, percent: u32) -> Vec<Lease> {
        (0..self.vms * HARD_LIMIT / 100 * percent).map(|_| self.lease()).collect()
    }

    /// Wall time of [`OPERATIONS`], shared out to so many threads.
    fn operations(&self, threads: u32) -> Duration {
        let begin = Instant::now();
        thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| (0..OPERATIONS / threads).for_each(|_| drop(black_box(self.lease()))));
            }
        });
        begin.elapsed()
    }
}
