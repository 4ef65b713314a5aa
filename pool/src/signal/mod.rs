//! A pool that follows what its guests say themselves: `[pool.NAME.signal]`.
//!
//! ```text
//!              every interval, each ready VM                       wanted VMs, until stale
//!  this task ──────── GET ────────> VM ──> Demand ──> Signalled ─────────────────────────> decide()
//!                                             └─────> Vm::weight ───────────────────────> choice
//! ```
//!
//! It looks at VMs from aside: a question is no request, holds no lease and starts nothing, so it neither keeps a VM nor
//! wakes a pool, and its traffic is not the guest's own doing (see [`weir_vmm::VmEvent::Report`]). Where requests are
//! isolated only VMs that have a tenant are asked: what is clean stays as it is, and has nothing to tell.
//!
//! [`demand`] bounds what lies can do, [`exposition`] and [`http`] what garbage can.

mod demand;
mod exposition;
mod http;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use futures::future::FutureExt;
use futures::stream::{self, StreamExt};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};
use weir_config::model::{self, Isolation, Signal};

use crate::gate::State;
use crate::metrics::{PoolMetrics, SignalSeries};
use crate::shared::Shared;
use crate::vm::Vm;
use demand::Demand;
pub(crate) use demand::NORMAL;
use http::ScrapeError;

/// VMs of one pool that are asked at the same time. Those that answer take a millisecond; the others, `timeout`.
const AT_ONCE: usize = 64;

/// What the guests of a pool ask for.
#[derive(Debug, Default)]
pub(crate) struct Signalled(Mutex<Option<Wanted>>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Wanted {
    vms: u32,
    until: Instant,
}

impl Signalled {
    /// VMs that are wanted at `now`; `None`: nobody has told lately.
    pub(crate) fn wanted(&self, now: Instant) -> Option<u32> {
        self.0.lock().filter(|wanted| now < wanted.until).map(|wanted| wanted.vms)
    }

    /// What was wanted before.
    fn replace(&self, wanted: Option<Wanted>) -> Option<u32> {
        std::mem::replace(&mut *self.0.lock(), wanted).map(|wanted| wanted.vms)
    }
}

/// Follows the signal of `shared`'s pool, whenever it has one, for as long as that has an owner.
pub(crate) async fn follow(shared: Arc<Shared>, metrics: PoolMetrics) {
    let mut configured = shared.configured.subscribe();
    loop {
        configured.mark_unchanged();
        let config = shared.config();
        let is_other = |now: &model::Pool| (&now.signal, now.scale.max) != (&config.signal, config.scale.max);
        let another = async {
            // An error would mean that its sender is gone, which `shared` has.
            while configured.changed().await.is_ok() && !is_other(&shared.config()) {}
        };
        tokio::select! {
            () = shared.events.closed() => return,
            () = another => {}
            () = follow_one(&shared, &config, &metrics) => {}
        }
        if config.signal.is_some() {
            forget(&shared);
        }
    }
}

/// Follows the signal of `config`, if there is one.
async fn follow_one(shared: &Shared, config: &model::Pool, metrics: &PoolMetrics) {
    let Some(signal) = &config.signal else { return std::future::pending().await };
    let series = metrics.signal(&shared.name);
    rounds(shared, &series, signal, |address| http::scrape(address, signal)).await;
}

/// What was told is of no use any more.
fn forget(shared: &Shared) {
    shared.signalled.replace(None);
    shared.ready_vms().iter().for_each(|vm| vm.weight.store(NORMAL, Relaxed));
    shared.wake.notify_one();
}

/// Asks all, again and again.
async fn rounds<A: Future<Output = Result<f64, ScrapeError>>>(
    shared: &Shared,
    series: &SignalSeries,
    signal: &Signal,
    ask: impl Fn(SocketAddr) -> A,
) {
    let mut demand = Demand::new(&shared.config(), signal);
    let mut instances = shared.instances.subscribe();
    loop {
        if instances.borrow().ready == 0 {
            // Nobody is left who says so.
            series.value.set(0.0);
        }
        if instances.wait_for(|now| now.ready > 0).await.is_err() {
            // Its sender is in `shared`.
            return;
        }
        let next = Instant::now() + signal.interval;
        let mut publish_at = next;
        let vms = shared.ready_vms();
        // When its turn has come, by which time it may be gone.
        let asked = (0..vms.len()).map(|index| vms[index].clone());
        let asked = asked.filter(|vm| may_be_asked(vm, shared.isolation));
        let answers = stream::iter(asked).map(|vm| ask(vm.address).map(move |answer| (vm, answer)));
        let mut answers = answers.buffer_unordered(AT_ONCE);
        while let Some((vm, answer)) = answers.next().await {
            let now = Instant::now();
            series.scraped(answer.as_ref().map_or_else(ScrapeError::label, |_| "ok"));
            match answer {
                // It need not be that VM that has answered.
                _ if vm.is_gone() => {}
                Ok(value) => demand.told(vm.id, value, now),
                Err(error) => {
                    let error: &dyn std::error::Error = &error;
                    tracing::debug!(pool = shared.name, vm = %vm.id, error, "signal not read");
                }
            }
            // Many that do not answer make a round longer than what the others told is worth.
            if now >= publish_at {
                publish(shared, series, &mut demand, &vms, now);
                publish_at = now + signal.interval;
            }
        }
        publish(shared, series, &mut demand, &vms, Instant::now());
        sleep_until(next).await;
    }
}

/// Not who is gone: its address may be another pool's VM's by now.
fn may_be_asked(vm: &Vm, isolation: Isolation) -> bool {
    let state = vm.gate.state().1;
    !vm.is_gone() && (isolation == Isolation::Vm || matches!(state, State::Ending | State::Held))
}

fn publish(shared: &Shared, series: &SignalSeries, demand: &mut Demand, vms: &[Arc<Vm>], now: Instant) {
    let there: BTreeSet<_> = vms.iter().map(|vm| vm.id).collect();
    demand.forget(now, |vm| there.contains(&vm));
    series.value.set(demand.sum().unwrap_or(0.0));
    if demand.weighs() {
        let weight = demand.weights();
        vms.iter().for_each(|vm| vm.weight.store(weight(vm.id), Relaxed));
    }
    let wanted = demand.wanted().zip(demand.until()).map(|(vms, until)| Wanted { vms, until });
    let vms = wanted.map(|wanted| wanted.vms);
    let before = shared.signalled.replace(wanted);
    if before != vms {
        if vms.is_none() {
            tracing::warn!(pool = shared.name, "no vm tells its signal any more");
        }
        shared.wake.notify_one();
    }
}

#[cfg(test)]
mod tests;
