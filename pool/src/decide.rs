//! What a pool should do next: a pure function of what it sees and the time.
//!
//! Demand is what is in flight on ready VMs plus what waits. The pool wants `ceil(demand / soft_limit)` VMs, at least
//! `min`, at most `max`, and starts what is missing at once. A VM that is not wanted goes when it has been without a
//! request for `idle_timeout`. Every process counts against `max` until it is gone, those being stopped too.

use std::time::Duration;

use tokio::time::Instant;
use weir_vmm::VmId;

/// How often a pool looks again at what no event announces.
const TICK: Duration = Duration::from_secs(1);
/// Shortest time between two looks.
const SHORTEST_TICK: Duration = Duration::from_millis(10);

/// The part of a pool's configuration that scaling depends on.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// VMs kept even when idle.
    pub min: u32,
    /// VMs never exceeded.
    pub max: u32,
    /// Requests in flight per VM that are aimed at; at least one.
    pub soft_limit: u32,
    /// How long a VM that is not wanted may be without a request.
    pub idle_timeout: Duration,
}

/// Where a VM is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Not READY yet.
    Starting,
    /// Takes requests.
    Ready,
    /// Takes no new ones, still has some.
    Draining,
    /// Its process is being ended.
    Stopping,
}

/// A VM as scaling sees it.
#[derive(Clone, Copy, Debug)]
pub struct VmView {
    /// Which.
    pub id: VmId,
    /// Where in its life.
    pub phase: Phase,
    /// Requests in flight.
    pub in_flight: u32,
    /// Since when it has had none; only meaningful for a ready VM with none.
    pub idle_since: Instant,
}

/// What earlier failures leave of the right to start VMs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// No reservation.
    Free,
    /// The last start failed: one at a time.
    Probe,
    /// Not before then, and then one.
    At(Instant),
}

/// Everything that a decision depends on, but the time.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// Configured limits.
    pub limits: Limits,
    /// Requests that wait.
    pub queued: usize,
    /// All processes that are not gone.
    pub vms: &'a [VmView],
    /// What failures leave.
    pub retry: Retry,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// VMs that the pool wants.
    pub desired: u32,
    /// VMs to start now.
    pub start: u32,
    /// Idle VMs to stop now, the longest idle first.
    pub retire: Vec<VmId>,
    /// When to decide again if nothing happens before.
    pub look_again: Option<Instant>,
}

/// Decides.
pub fn decide(view: &View<'_>, now: Instant) -> Decision {
    let desired = desired(view);
    let (start, retry_at) = starts(view, desired, now);
    let (retire, idle_at) = retirements(view, desired, now);
    Decision { desired, start, retire, look_again: retry_at.into_iter().chain(idle_at).min() }
}

fn desired(view: &View<'_>) -> u32 {
    let in_flight: u64 = of(view, Phase::Ready).map(|vm| u64::from(vm.in_flight)).sum();
    let demand = in_flight.saturating_add(view.queued as u64);
    let wanted = u32::try_from(demand.div_ceil(u64::from(view.limits.soft_limit.max(1)))).unwrap_or(u32::MAX);
    wanted.max(view.limits.min).min(view.limits.max)
}

/// How many to start, and when to try again if it is too early.
fn starts(view: &View<'_>, desired: u32, now: Instant) -> (u32, Option<Instant>) {
    let missing = desired.saturating_sub(live(view));
    let count = missing.min(view.limits.max.saturating_sub(saturating(view.vms.len())));
    let one_at_a_time = || if of(view, Phase::Starting).next().is_some() { 0 } else { count.min(1) };
    match view.retry {
        Retry::Free => (count, None),
        Retry::At(at) if now < at => (0, (count > 0).then_some(at)),
        Retry::Probe | Retry::At(_) => (one_at_a_time(), None),
    }
}

/// Which to stop, and when the next one may be due.
fn retirements(view: &View<'_>, desired: u32, now: Instant) -> (Vec<VmId>, Option<Instant>) {
    let Limits { min, idle_timeout, .. } = view.limits;
    if live(view) <= min {
        return (Vec::new(), None);
    }
    let mut idle: Vec<_> = of(view, Phase::Ready)
        .filter(|vm| vm.in_flight == 0)
        .map(|vm| (vm.idle_since + idle_timeout, std::cmp::Reverse(vm.id)))
        .collect();
    idle.sort_unstable();
    let due = idle.partition_point(|(at, _)| *at <= now);
    let retired = due.min((live(view) - desired.min(live(view))) as usize);
    // A lease's end is no event. A busy VM cannot be due before a whole timeout from now; one that is due but still
    // wanted goes when demand falls.
    let busy = of(view, Phase::Ready).any(|vm| vm.in_flight > 0).then(|| now + busy_again(idle_timeout));
    let wanted = (retired < due).then(|| now + idle_timeout.clamp(SHORTEST_TICK, TICK));
    let next = idle.get(due).map(|(at, _)| *at);
    let retire = idle[..retired].iter().map(|(_, id)| id.0).collect();
    (retire, [busy, wanted, next].into_iter().flatten().min())
}

/// When a VM that has a request now may be due at the earliest.
pub(crate) fn busy_again(idle_timeout: Duration) -> Duration {
    idle_timeout.max(SHORTEST_TICK)
}

/// VMs that are or will be of use.
fn live(view: &View<'_>) -> u32 {
    saturating(view.vms.iter().filter(|vm| matches!(vm.phase, Phase::Starting | Phase::Ready)).count())
}

fn of<'a>(view: &View<'a>, phase: Phase) -> impl Iterator<Item = &'a VmView> {
    view.vms.iter().filter(move |vm| vm.phase == phase)
}

fn saturating(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
