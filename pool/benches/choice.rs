//! `choice`: what a request to a warm VM costs the pool: choose, take a lease, give it back.
//!
//! The pools are real ones on a launcher whose VMs do nothing. Rounds of the sizes are interleaved. Where places are taken,
//! it is at random, so that of VMs with one place each the free ones lie scattered.

use std::hint::black_box;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use futures::FutureExt;
use prometheus::Registry;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use weir_pool::fake::{self, Boot, FakeLauncher, Script};
use weir_pool::{Caller, Lease, Pool, PoolMetrics, Pools};

const SIZES: [u32; 3] = [10, 1000, 10_000];
/// Soft and hard.
const LIMITS: [(u32, u32); 3] = [(64, 64), (16, 64), (1, 1)];
const ROUNDS: usize = 15;
const OPERATIONS: u32 = 100_000;
const THREADS: u32 = 8;

struct Bench {
    vms: u32,
    places: u32,
    pools: Pools,
    caller: Caller,
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.expect("start the runtime");
    for (soft, hard) in LIMITS {
        let new = |vms: &u32| runtime.block_on(Bench::new(*vms, soft, hard));
        let benches: Vec<_> = SIZES.iter().map(new).collect();
        for percent in [0, 50, 99] {
            let held: Vec<Vec<Lease>> = benches.iter().map(|bench| bench.fill(percent)).collect();
            for threads in [1, THREADS] {
                let what = format!("limits {soft} and {hard}, {percent} % taken, {threads} threads");
                // Threads that hold a lease each must not find the smallest pools full: that is another thing.
                let has_room = |bench: &&Bench| bench.free(percent) >= threads;
                compare(&benches.iter().filter(has_room).collect::<Vec<_>>(), &what, |bench| {
                    bench.operations(threads)
                });
            }
            drop(held);
        }
    }
}

fn compare(benches: &[&Bench], what: &str, run: impl Fn(&Bench) -> Duration) {
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
    async fn new(vms: u32, soft: u32, hard: u32) -> Self {
        let mut pool = fake::pool("p");
        (pool.scale.min, pool.scale.max) = (vms, vms);
        (pool.soft_limit, pool.hard_limit) = (soft, hard);
        // Nobody listens there.
        pool.health.interval = Duration::from_secs(3600);
        let mut config = fake::config([pool]);
        (config.host.max_vms, config.host.memory, config.host.max_starts) = (vms, u64::MAX, vms);
        let metrics = PoolMetrics::register(&Registry::new()).expect("nothing is registered yet");
        let launcher = FakeLauncher::new(Script::boot(Boot::Ready(Duration::ZERO)));
        let pools = Pools::start(&config, launcher, metrics).expect("the host has room");
        let mut instances = pools.get("p").expect("it is configured").instances();
        instances.wait_for(|now| now.ready == vms).await.expect("the pool lives");
        Self { vms, places: vms * hard, pools, caller: Caller::anonymous() }
    }

    fn pool(&self) -> Arc<Pool> {
        self.pools.get("p").expect("it is configured")
    }

    fn lease(&self) -> Lease {
        self.pool().lease_for(&self.caller).now_or_never().expect("there is room").expect("it is open")
    }

    fn free(&self, percent: u32) -> u32 {
        self.places - self.places * percent / 100
    }

    fn fill(&self, percent: u32) -> Vec<Lease> {
        // All are taken, and random ones given back.
        let mut leases: Vec<_> = (0..self.places).map(|_| self.lease()).collect();
        let mut rng = StdRng::seed_from_u64(1);
        for _ in 0..self.free(percent) {
            leases.swap_remove(rng.random_range(0..leases.len()));
        }
        leases
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
