//! Random traffic on random VMs, checked against what must always hold.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio::task::JoinHandle;
use tokio::time::{advance, sleep};
use weir_config::model::Isolation;
use weir_pool::fake::{Boot, Reset, Script};
use weir_pool::{LeaseError, Tenancy};
use weir_vmm::{ExitReason, VmId};

use crate::support::{Anonymous, World, ms, settle};

struct Simulation {
    world: World,
    rng: StdRng,
    waiting: Vec<JoinHandle<Result<Lease, LeaseError>>>,
    leases: Vec<Lease>,
    /// VMs that must get no more requests.
    out: Vec<VmId>,
    /// Open connections, each with its number.
    connections: Vec<(u64, Arc<Tenancy>)>,
    /// The next number of a connection or a request.
    next: u64,
    /// Whom each VM served last, and how often it had been reset by then.
    served: BTreeMap<VmId, (u64, u32)>,
}

/// A lease, and whose it is: a connection's or, where requests are isolated, a request's.
#[derive(Debug)]
struct Lease {
    lease: weir_pool::Lease,
    tenant: u64,
}

impl Lease {
    fn vm(&self) -> VmId {
        self.lease.vm()
    }
}

impl Simulation {
    fn new(seed: u64, min: u32, isolation: Isolation) -> Self {
        let world = World::one(Script::boot(Boot::Ready(ms(10))), |pool| {
            pool.isolation = isolation;
            if isolation != Isolation::Vm {
                (pool.soft_limit, pool.hard_limit) = (1, 1);
            }
            pool.scale.min = min;
            pool.scale.idle_timeout = ms(300);
            pool.scale.stable_window = ms(3000);
            pool.scale.panic_window = ms(300);
            pool.queue.timeout = ms(400);
            pool.start_timeout = ms(200);
        });
        Self {
            world,
            rng: StdRng::seed_from_u64(seed),
            waiting: vec![],
            leases: vec![],
            out: vec![],
            connections: vec![],
            next: 0,
            served: BTreeMap::new(),
        }
    }

    fn isolation(&self) -> Isolation {
        self.world.pool().config().isolation
    }

    /// On a connection that is open, or on a new one.
    fn request(&mut self) {
        self.next += 1;
        let open = self.connections.len();
        let nth = self.rng.random_range(0..=open);
        if nth == open {
            self.connections.push((self.next, Arc::new(self.world.pool().tenancy())));
        }
        let (number, tenancy) = self.connections[nth].clone();
        let tenant = if self.isolation() == Isolation::Connection { number } else { self.next };
        self.waiting.push(tokio::spawn(async move {
            let lease = tenancy.lease().await?;
            Ok(Lease { lease, tenant })
        }));
    }

    fn any_script(&mut self) -> Script {
        let after = ms(self.rng.random_range(0..120));
        let boot = match self.rng.random_range(0..12) {
            0 => Boot::Silent,
            1 => Boot::Hangs,
            2 => Boot::Refused("no".into()),
            3 => Boot::Exits(after, ExitReason::Exited(3)),
            _ => Boot::Ready(after),
        };
        let stop = self.rng.random_bool(0.8).then_some(after);
        let reset = match self.rng.random_range(0..6) {
            0 => Reset::Hangs,
            1 => Reset::Exits(after, ExitReason::Stopped),
            _ => Reset::Ready(after),
        };
        Script { stop, reset, ..Script::boot(boot) }
    }

    async fn step(&mut self) {
        match self.rng.random_range(0..11) {
            0..4 => self.request(),
            4..6 if !self.leases.is_empty() => {
                let nth = self.rng.random_range(0..self.leases.len());
                self.leases.swap_remove(nth);
            }
            6 if !self.waiting.is_empty() => {
                let nth = self.rng.random_range(0..self.waiting.len());
                self.waiting.swap_remove(nth).abort();
            }
            7 => {
                let script = self.any_script();
                self.world.launcher.script_next(script);
            }
            8 => self.spoil(),
            9 if !self.connections.is_empty() => {
                let nth = self.rng.random_range(0..self.connections.len());
                self.connections.swap_remove(nth);
            }
            _ => advance(ms(self.rng.random_range(0..80))).await,
        }
        settle().await;
        self.collect().await;
        self.check();
    }

    /// A VM crashes, or one is suspect.
    fn spoil(&mut self) {
        let alive = self.world.launcher.alive("p");
        if self.rng.random_bool(0.5) && !alive.is_empty() {
            let id = alive[self.rng.random_range(0..alive.len())];
            self.world.launcher.crash(id, ExitReason::Panicked("x".into()));
            self.out.push(id);
        } else if let Some(lease) = self.leases.last() {
            lease.lease.suspect();
            self.out.push(lease.vm());
        }
    }

    async fn collect(&mut self) {
        let (done, waiting) =
            std::mem::take(&mut self.waiting).into_iter().partition(JoinHandle::is_finished);
        self.waiting = waiting;
        for request in done {
            if let Ok(lease) = request.await.unwrap() {
                self.served(&lease);
                self.leases.push(lease);
            }
        }
    }

    /// No VM serves two tenancies without a reset in between, nor is it reset for one that it serves already.
    fn served(&mut self, lease: &Lease) {
        let (vm, resets) = (lease.vm(), self.world.launcher.resets(lease.vm()));
        let before = self.served.insert(vm, (lease.tenant, resets));
        if self.isolation() == Isolation::Vm {
            return;
        }
        assert_eq!(lease.lease.generation(), resets, "what the pool takes for a reset is one");
        if let Some((tenant, resets_before)) = before {
            assert!(tenant == lease.tenant || resets > resets_before, "{vm} was not reset");
        }
    }

    fn check(&self) {
        let config = self.world.pool().config();
        let mut users: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for lease in &self.leases {
            users.entry(lease.vm()).or_default().push(lease.tenant);
            let generation = lease.lease.generation();
            assert!(generation == self.world.launcher.resets(lease.vm()), "reset under its lease");
        }
        for (vm, tenants) in users {
            match config.isolation {
                Isolation::Vm => assert!(tenants.len() <= config.hard_limit as usize, "above the hard limit"),
                Isolation::Connection | Isolation::Request => {
                    assert_eq!(tenants.iter().collect::<BTreeSet<_>>().len(), 1, "{vm} has {tenants:?}");
                }
            }
        }
        assert!(self.world.alive() <= config.scale.max as usize, "more VMs than max");
        assert!(self.world.pool().queued() <= config.queue.max_pending, "more wait than may");
        let instances = *self.world.pool().instances().borrow();
        assert!(instances.total() <= config.scale.max);
        self.check_metrics();
        let alive = self.world.launcher.alive("p");
        let gone = self.leases.iter().filter(|lease| !alive.contains(&lease.vm()));
        assert!(gone.map(Lease::vm).all(|id| self.out.contains(&id)), "a VM was stopped under its lease");
    }

    /// Every start is an instance or an exit, and every state's gauge shows it.
    fn check_metrics(&self) {
        let world = &self.world;
        let instances = *world.pool().instances().borrow();
        let gauge = |state: &str, count: u32| {
            let series = format!(r#"weir_vm_instances{{pool="p",state="{state}"}}"#);
            assert_eq!(world.metric(&series), f64::from(count), "{state}");
        };
        gauge("starting", instances.starting);
        gauge("ready", instances.ready);
        gauge("draining", instances.draining);
        gauge("stopping", instances.stopping);
        let count = |count: usize| f64::from(u32::try_from(count).unwrap());
        let ended = world.sum("weir_vm_exits_total{");
        assert_eq!(count(world.launcher.started().len()), ended + f64::from(instances.total()));
        assert_eq!(
            world.metric(r#"weir_queue_depth{class="default",pool="p"}"#),
            count(world.pool().queued())
        );
    }

    /// When all is quiet and VMs behave, the pool is as it was at first.
    async fn wind_down(mut self, min: u32) {
        self.leases.clear();
        self.connections.clear();
        for request in self.waiting.drain(..) {
            drop(request.await.unwrap());
        }
        self.world.launcher.forget_scripts();
        sleep(Duration::from_secs(30)).await;
        assert_eq!(self.world.pool().queued(), 0);
        assert_eq!(self.world.alive(), min as usize);
        assert_eq!(self.world.pool().instances().borrow().total(), min);
        self.world.lease().await;
        self.world.pools.drain(Duration::from_secs(5)).await;
        assert_eq!(self.world.alive(), 0);
    }
}

fn isolations() -> impl Strategy<Value = Isolation> {
    prop_oneof![Just(Isolation::Vm), Just(Isolation::Request), Just(Isolation::Connection)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]
    #[test]
    fn invariants_hold_whatever_happens(seed: u64, min in 0..3u32, isolation in isolations()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let mut simulation = Simulation::new(seed, min, isolation);
            for _ in 0..150 {
                simulation.step().await;
            }
            simulation.wind_down(min).await;
        });
    }
}
