//! The world in which a policy is tried: requests, VMs and a host, in virtual time.
//!
//! ```text
//!  arrival --place?--> in flight --service--> left            VM: start --Draws--> READY --drain, empty--> gone
//!     |                    ^                    |
//!     +--> queue ----------+ <------------------+             after each event: Policy::decide, then dispatch
//!            +--> 503 (full, or waited too long)
//! ```
//!
//! Events are taken in the order of their times and, at the same time, of their making, so that a run depends on its
//! input and seed alone. The queue is first in, first out: who waits for how long in sum does not depend on fairness. VMs
//! do not fail, and one that is stopped is gone at once.

mod host;
mod measures;
mod pass;
mod pool;
mod site;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;
use weir_config::model::{Config, Overflow, Pool};
use weir_vmm::VmId;

use self::host::Room;
use self::pool::{SimPool, Waiting};
use self::site::Site;
use super::policy::Policy;
use super::slow::{SlowVms, Speeds};
use super::start_time::{Draws, StartTimes};
use super::trace::{Arrival, Trace};
use crate::scale::Phase;

pub use measures::Measures;
pub(crate) use measures::Series;

/// How long a VM takes back to its snapshot: measured, `docs/BENCHMARKS.md`.
const RESET: Duration = Duration::from_micros(400);

/// What a run is like, whatever the policy.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Conditions {
    /// How long VMs take to start.
    pub(crate) starts: StartTimes,
    /// Of all that is random.
    pub(crate) seed: u64,
    /// When the run ends, from its begin: later than any request.
    pub(crate) end: Duration,
    /// VMs that take longer.
    pub(crate) slow: Option<SlowVms>,
    /// Whether the choice of a VM depends on how long they take.
    pub(crate) by_latency: bool,
    /// Of the time series; not zero.
    pub(crate) step: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Ready(VmId),
    /// A request that took so long.
    Left(VmId, Duration),
    Clean(VmId),
    /// The request that has waited longest may have to go.
    Expire,
    Look,
}

struct Engine<'c> {
    sites: Vec<Site<'c>>,
    room: Room,
    /// Some VMs are, so that answers differ.
    slow: bool,
    by_latency: bool,
    events: BinaryHeap<Reverse<(Instant, u64, usize, Event)>>,
    made: u64,
    next_vm: u64,
    begin: Instant,
    /// Which pools are to be looked at before time goes on.
    passes: VecDeque<usize>,
}

/// Runs `trace` with one policy per pool; what was measured of each pool, in the order of their names.
pub(crate) fn run(
    trace: &Trace,
    config: &Config,
    conditions: &Conditions,
    mut policy: impl FnMut(&Pool, Instant) -> Box<dyn Policy>,
) -> Vec<Measures> {
    let begin = Instant::now();
    let site = |(index, pool)| {
        let pool: &Pool = pool;
        let seed = conditions.seed.wrapping_add(index);
        Site {
            policy: policy(pool, begin),
            pool: SimPool::new(pool, !seed),
            draws: Draws::new(conditions.starts, seed),
            speeds: Speeds::new(conditions.slow, seed),
            look_at: None,
            starved: false,
            demand: 0,
            measures: Measures::default(),
            vms: Series::new(conditions.step, conditions.end),
        }
    };
    let mut engine = Engine {
        sites: (0..).zip(config.pools.values().map(|pool| &**pool)).map(site).collect(),
        room: Room::new(config),
        slow: conditions.slow.is_some(),
        by_latency: conditions.by_latency,
        events: BinaryHeap::new(),
        made: 0,
        next_vm: 0,
        begin,
        passes: (0..config.pools.len()).collect(),
    };
    engine.run(trace.arrivals(), begin + conditions.end);
    engine.finish(conditions.end)
}

impl Engine<'_> {
    fn run(&mut self, arrivals: &[Arrival], end: Instant) {
        self.settle(self.begin);
        let mut arrivals = arrivals.iter().peekable();
        loop {
            let arrives_at = arrivals.peek().map(|arrival| self.begin + arrival.at);
            let event_at = self.events.peek().map(|Reverse((at, ..))| *at);
            match (event_at, arrives_at) {
                (Some(at), arrives_at) if arrives_at.is_none_or(|arrival| at <= arrival) => {
                    let Some(Reverse((now, _, site, event))) = self.events.pop().filter(|_| at <= end) else {
                        return;
                    };
                    self.apply(site, event, now);
                    self.settle(now);
                }
                (_, Some(now)) => {
                    if let Some(arrival) = arrivals.next() {
                        self.arrive(arrival, now);
                    }
                    self.settle(now);
                }
                (_, None) => return,
            }
        }
    }

    fn arrive(&mut self, arrival: &Arrival, now: Instant) {
        let index = arrival.pool;
        let site = &mut self.sites[index];
        site.measures.arrivals += 1;
        let config = site.pool.config;
        if let Some(place) = site.pool.enter_warm() {
            site.demand(1, now);
            self.serve(index, place.vm, Waiting { since: now, service: arrival.service }, now);
            if place.above_soft && self.sites[index].may_grow() {
                self.passes.push_back(index);
            }
        } else if site.pool.queue.len() >= config.queue.max_pending {
            site.measures.rejected += 1;
        } else {
            site.demand(1, now);
            site.pool.queue.push_back(Waiting { since: now, service: arrival.service });
            self.pass(index, now);
            self.settle(now);
            if config.queue.overflow == Overflow::Reject && self.sites[index].pool.queue.pop_back().is_some()
            {
                self.sites[index].measures.rejected += 1;
                self.sites[index].demand(-1, now);
            } else {
                self.at(now + config.queue.timeout, index, Event::Expire);
            }
        }
    }

    fn apply(&mut self, index: usize, event: Event, now: Instant) {
        match event {
            Event::Ready(id) => {
                // One that was stopped before has given its start back.
                let site = &mut self.sites[index];
                if let Some(vm) = site.pool.vm(id) {
                    (vm.view.phase, vm.view.idle_since, vm.ready_at) = (Phase::Ready, now, Some(now));
                    self.room.started();
                    self.passes.push_back(index);
                    self.wake_starved();
                }
            }
            Event::Left(id, took) => self.left(index, id, took, now),
            Event::Clean(id) => {
                if let Some(vm) = self.sites[index].pool.vm(id).filter(|vm| vm.view.phase == Phase::Resetting)
                {
                    vm.view.phase = Phase::Ready;
                    self.dispatch(index, now);
                }
            }
            Event::Expire => self.sites[index].expire(now),
            Event::Look => {
                if self.sites[index].look_at.is_some_and(|at| at <= now) {
                    self.passes.push_back(index);
                }
            }
        }
    }

    /// A request that waited, be it for no time, enters its VM.
    fn serve(&mut self, index: usize, id: VmId, request: Waiting, now: Instant) {
        let site = &mut self.sites[index];
        let vm = site.pool.vm(id).expect("it has just been chosen");
        let takes = request.service.mul_f64(vm.slowness);
        let wait = now - request.since;
        site.measures.served(wait, self.slow.then_some(wait + takes));
        self.at(now + takes, index, Event::Left(id, takes));
    }

    fn left(&mut self, index: usize, id: VmId, took: Duration, now: Instant) {
        let site = &mut self.sites[index];
        site.demand(-1, now);
        let resets = site.pool.resets();
        let waiting = !site.pool.queue.is_empty();
        let vm = site.pool.vm(id).expect("a vm with a request is not stopped");
        vm.view.in_flight -= 1;
        vm.view.idle_since = now;
        if self.by_latency {
            vm.latency.observe(took);
        }
        match (vm.view.phase, vm.view.in_flight) {
            (Phase::Draining, 0) => self.passes.push_back(index),
            (Phase::Ready, _) if resets => {
                vm.view.phase = Phase::Resetting;
                self.at(now + RESET, index, Event::Clean(id));
            }
            (Phase::Ready, 0) if waiting => self.passes.push_back(index),
            _ => {}
        }
        self.dispatch(index, now);
    }

    fn at(&mut self, at: Instant, index: usize, event: Event) {
        self.made += 1;
        self.events.push(Reverse((at, self.made, index, event)));
    }

    fn finish(self, end: Duration) -> Vec<Measures> {
        let finish = |mut site: Site<'_>| {
            for vm in &site.pool.vms {
                site.measures.vm_time += self.begin + end - vm.started_at;
            }
            site.measures.waits.sort_unstable();
            site.measures.answers.sort_unstable();
            site.measures.vms = site.vms.means(end);
            site.measures
        };
        self.sites.into_iter().map(finish).collect()
    }
}

#[cfg(test)]
mod tests;
