//! What a pool should do next: a pure function of what it sees and the time.
//!
//! Demand is what is in flight on ready VMs plus what waits. The pool wants `ceil(demand / soft_limit)` VMs, at least
//! `min`, at most `max`, and starts what is missing at once. A VM that is not wanted goes when it has been without a
//! request for `idle_timeout`. Every process counts against `max` until it is gone, those being stopped too.
//!
//! Where connections are isolated, each one that holds a VM is demand for one VM whether it has a request in flight or
//! not; but one that has had none for `idle_timeout` is no demand any more, and loses the VM. It loses it earlier if
//! others wait and no VM can be had for them otherwise, the longest idle first.

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
    /// Connections hold VMs.
    pub connections: bool,
}

/// Where a VM is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Not READY yet.
    Starting,
    /// Takes requests.
    Ready,
    /// Was ready, and will be again when what its last user left behind is gone.
    Resetting,
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
    /// Requests in flight; at most one where it is isolated.
    pub in_flight: u32,
    /// A connection holds it, also when it has no request in flight.
    pub held: bool,
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
    /// VMs that the guests' own metric asks for.
    pub signal: Option<u32>,
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
    let desired = desired(view, now);
    let (start, retry_at) = starts(view, desired, now);
    let (retire, idle_at) = retirements(view, desired, now);
    Decision { desired, start, retire, look_again: retry_at.into_iter().chain(idle_at).min() }
}

fn desired(view: &View<'_>, now: Instant) -> u32 {
    let used: u64 = of(view, Phase::Ready).map(|vm| u64::from(demand_on(view, vm, now))).sum();
    let demand = used.saturating_add(view.queued as u64);
    let wanted = u32::try_from(demand.div_ceil(u64::from(view.limits.soft_limit.max(1)))).unwrap_or(u32::MAX);
    wanted.max(view.signal.unwrap_or(0)).max(view.limits.min).min(view.limits.max)
}

fn demand_on(view: &View<'_>, vm: &VmView, now: Instant) -> u32 {
    let held_idle = vm.held && now < vm.idle_since + view.limits.idle_timeout;
    vm.in_flight.max(u32::from(held_idle))
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
    let idle_timeout = view.limits.idle_timeout;
    // Of a pool as small as it may be only connections can be due.
    let surplus = live(view) > view.limits.min;
    let watched = |vm: &&VmView| surplus || vm.held;
    let mut idle: Vec<_> = of(view, Phase::Ready)
        .filter(watched)
        .filter(|vm| vm.in_flight == 0)
        .map(|vm| (vm.idle_since + idle_timeout, std::cmp::Reverse(vm.id), vm.held))
        .collect();
    idle.sort_unstable();
    let due = idle.partition_point(|(at, ..)| *at <= now);
    let retired = due.min((live(view) - desired.min(live(view))) as usize);
    // Neither a lease's end nor a reset's is an event, nor that a connection takes an idle VM. A busy VM cannot be due
    // before a whole timeout from now; one that is due but still wanted goes when demand falls.
    let connections = view.limits.connections;
    let in_use = |vm: &VmView| connections || vm.in_flight > 0 || vm.phase == Phase::Resetting;
    let usable = of(view, Phase::Ready).chain(of(view, Phase::Resetting));
    let mut usable = usable.filter(|vm| connections || watched(vm));
    let busy = usable.any(in_use).then(|| now + busy_again(idle_timeout));
    let wanted = (retired < due).then(|| now + idle_timeout.clamp(SHORTEST_TICK, TICK));
    let next = idle.get(due).map(|(at, ..)| *at);
    let retire = idle[..retired].iter().map(|(_, id, _)| id.0).collect();
    (retire, [busy, wanted, next].into_iter().flatten().min())
}

/// Whose connections without a request in flight lose their VM now, the longest idle first. `started` VMs could be
/// started on a decision about the same view that retired `retired`.
pub fn revocations(view: &View<'_>, retired: &[VmId], started: u32, now: Instant) -> Vec<VmId> {
    let mut idle: Vec<_> = of(view, Phase::Ready)
        .filter(|vm| vm.held && vm.in_flight == 0 && !retired.contains(&vm.id))
        .map(|vm| (vm.idle_since, vm.id))
        .collect();
    idle.sort_unstable();
    let due = idle.partition_point(|(since, _)| *since + view.limits.idle_timeout <= now);
    let is_coming = |vm: &&VmView| match vm.phase {
        Phase::Starting | Phase::Resetting => true,
        Phase::Ready => !vm.held && vm.in_flight == 0,
        Phase::Draining | Phase::Stopping => false,
    };
    let coming = view.vms.iter().filter(is_coming).count() + started as usize;
    let count = view.queued.saturating_sub(coming).max(due);
    idle.into_iter().take(count).map(|(_, id)| id).collect()
}

/// When a VM that has a request now may be due at the earliest.
pub(crate) fn busy_again(idle_timeout: Duration) -> Duration {
    idle_timeout.max(SHORTEST_TICK)
}

/// VMs that are or will be of use.
fn live(view: &View<'_>) -> u32 {
    let is_live = |vm: &&VmView| matches!(vm.phase, Phase::Starting | Phase::Ready | Phase::Resetting);
    saturating(view.vms.iter().filter(is_live).count())
}

fn of<'a>(view: &View<'a>, phase: Phase) -> impl Iterator<Item = &'a VmView> {
    view.vms.iter().filter(move |vm| vm.phase == phase)
}

fn saturating(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
