//! `decide`: what it costs to decide for 1,000 pools, the division of the host between them included.
//!
//! Each pool has four VMs on average, some of them busy, and a history; every second one wants more than it has, so that
//! together they want more than the host has room for.
#![allow(clippy::unwrap_used, reason = "this program measures; what fails is to end it")]

use std::hint::black_box;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::time::Instant;
use weir_config::model::{Pool, Schedule};
use weir_pool::budget::{Claim, Room, allot};
use weir_pool::fake;
use weir_pool::scale::{Decision, Limits, Phase, View, VmView, WeekTime, Windows, decide, demand, live};
use weir_vmm::VmId;

const POOLS: u32 = 1000;
const ROUNDS: usize = 300;
const HOST: Room = Room { memory: 64 << 30, vms: 4000 };

struct Case {
    pool: Pool,
    limits: Limits,
    windows: Windows,
    vms: Vec<VmView>,
    queued: usize,
}

impl Case {
    fn new(number: u32, rng: &mut StdRng, now: Instant) -> Self {
        let mut pool = fake::pool(&format!("p{number}"));
        (pool.soft_limit, pool.scale.max, pool.weight) = (16, 64, rng.random_range(1..10));
        if number.is_multiple_of(10) {
            let days = [true, true, true, true, true, false, false];
            pool.scale.schedule = vec![Schedule { days, from: 480, to: 1080, min: 2 }];
        }
        let limits = Limits::of(&pool);
        let vm = |id| VmView {
            id: VmId(id),
            phase: Phase::Ready,
            in_flight: if id % 3 == 0 { 0 } else { 9 },
            held: false,
            idle_since: now,
        };
        let vms: Vec<_> = (0..rng.random_range(0..9)).map(vm).collect();
        let queued = if number.is_multiple_of(2) { rng.random_range(0..200) } else { 0 };
        Self { windows: Windows::new(&limits), limits, pool, vms, queued }
    }

    fn decide(&mut self, week_time: WeekTime, now: Instant) -> Decision {
        let demand = demand(&self.limits, self.queued, &self.vms, now);
        let averages = self.windows.observe(demand, live(&self.vms), now);
        let view = View { averages, week_time, ..View::new(&self.limits, self.queued, &self.vms) };
        decide(&view, now)
    }

    fn claim(&self, decision: &Decision) -> Claim {
        Claim {
            weight: self.pool.weight,
            memory: self.pool.memory,
            min: decision.min,
            want: decision.desired,
            taken: live(&self.vms),
            leaving: 0,
            idle: 1,
        }
    }
}

fn main() {
    let mut rng = StdRng::seed_from_u64(4);
    let mut now = Instant::now();
    let week_time = WeekTime::of(std::time::SystemTime::now());
    let mut cases: Vec<_> = (0..POOLS).map(|number| Case::new(number, &mut rng, now)).collect();
    let (mut decided, mut divided) = (Vec::new(), Vec::new());
    let mut wanted = 0;
    for _ in 0..ROUNDS {
        now += Duration::from_millis(137);
        let begin = std::time::Instant::now();
        let decisions: Vec<_> = cases.iter_mut().map(|case| case.decide(week_time, now)).collect();
        let middle = std::time::Instant::now();
        let claims: Vec<_> =
            cases.iter().zip(&decisions).map(|(case, decision)| case.claim(decision)).collect();
        black_box(allot(HOST, &claims));
        decided.push(middle - begin);
        divided.push(middle.elapsed());
        wanted = claims.iter().map(|claim| u64::from(claim.want)).sum();
    }
    let vms: usize = cases.iter().map(|case| case.vms.len()).sum();
    println!("{POOLS} pools with {vms} VMs, which want {wanted} of {} VMs", HOST.vms);
    let totals = decided.iter().zip(&divided).map(|(one, other)| *one + *other).collect();
    for (what, times) in [("decide", decided), ("divide the host", divided), ("both", totals)] {
        print(what, times);
    }
}

fn print(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let micros = |part: usize| times[(times.len() - 1) * part / 100].as_secs_f64() * 1e6;
    println!("{what:16} p50 {:6.0} us, p99 {:6.0} us", micros(50), micros(99));
}
