//! Which VMs go, for being idle, for being too many, or for other pools.

use std::cmp::Reverse;
use std::time::Duration;

use tokio::time::Instant;
use weir_config::model::{Isolation, Thousandths};
use weir_vmm::VmId;

use super::desired::{sustained, vms_for_average};
use super::{Averages, Phase, SHORTEST_TICK, TICK, View, VmView, busy_again, live, saturating};

/// How much of the VMs that stay after a peak the stable average may fill: with none to spare, the next ripple would
/// start again what has just been stopped.
const FULL: Thousandths = Thousandths(800);
/// Parts of `panic_window`: a VM that the averages do not need goes when it has been idle for one. Longer than the pauses
/// between requests to a VM that is in use; not much longer, since to start it again takes two milliseconds.
const SETTLED: u32 = 15;
/// Parts of `panic_window` between two looks at what changes without an event. An event is more likely when there is much
/// to do; were it not for these looks, the demand that it shows would count for too long.
const SAMPLE: u32 = 30;
/// One in so many VMs may be draining, and one in any case. A request that lasts for hours would keep a VM which serves
/// nobody else, and there might soon be many.
const DRAINING: u32 = 8;
/// How often to see whether a VM that other pools wait for has become idle: the end of a lease does not tell.
pub(super) const RECLAIM_TICK: Duration = Duration::from_millis(20);

/// What goes.
pub(super) struct Retirements {
    pub(super) retire: Vec<VmId>,
    pub(super) drain: Vec<VmId>,
    pub(super) look_again: Option<Instant>,
}

/// VMs without a request by when they are due, the longest idle first.
type Idle = Vec<(Instant, Reverse<VmId>, bool)>;

pub(super) fn retirements(
    view: &View<'_>,
    desired: u32,
    min: u32,
    in_panic: bool,
    now: Instant,
) -> Retirements {
    let live = live(view.vms);
    let idle = idle(view, live > min);
    let due = idle.partition_point(|(at, ..)| *at <= now);
    let above = |floor: u32| live.saturating_sub(floor.max(slowest(view)));
    let spare = if in_panic { 0 } else { above(desired.max(min).max(needed(view))) };
    let spare_idle = spare.min(saturating(settled(view, &idle, now)));
    let may_go = if in_panic { 0 } else { saturating(due).min(above(desired.max(filled(view)))) };
    let surplus = if in_panic { 0 } else { above(desired.max(min).max(roomy(view))) };
    let reclaim = view.reclaim.min(live.saturating_sub(min));
    // Of those that are not due the ones that a connection holds stay: it may come back to them.
    let count = may_go.max(spare_idle).max(surplus).max(reclaim) as usize;
    let goes = |index: usize, held: bool| index < may_go as usize || !held;
    let retire: Vec<_> = idle
        .iter()
        .enumerate()
        .filter(|(index, (.., held))| goes(*index, *held))
        .take(count)
        .map(|(_, (_, id, _))| id.0)
        .collect();
    let left = surplus.max(reclaim).saturating_sub(saturating(retire.len()));
    let drain = drains(view, live, left);
    let look_again = look_again(view, &idle, due, retire.len(), live > min, now);
    let reclaim_at = (left > 0 && reclaim > 0).then(|| now + RECLAIM_TICK);
    Retirements { retire, drain, look_again: look_again.into_iter().chain(reclaim_at).min() }
}

/// Of a pool as small as it may be only connections can be due.
fn watched(vm: &VmView, surplus: bool) -> bool {
    surplus || vm.held
}

fn idle(view: &View<'_>, surplus: bool) -> Idle {
    let idle_timeout = view.limits.idle_timeout;
    let mut idle: Vec<_> = view
        .of(Phase::Ready)
        .filter(|vm| watched(vm, surplus) && vm.in_flight == 0)
        .map(|vm| (vm.idle_since + idle_timeout, Reverse(vm.id), vm.held))
        .collect();
    idle.sort_unstable();
    if saturating(idle.len()) == live(view.vms)
        && let Some((due, _, false)) = idle.last_mut()
    {
        *due += longer(view);
    }
    idle
}

/// How much longer the last VM may be idle than others; it is the one that was used last.
fn longer(view: &View<'_>) -> Duration {
    view.keep.min(view.limits.keep_last).saturating_sub(view.limits.idle_timeout)
}

/// VMs that the stable average fills. Not those that connections held without using them.
fn filled(view: &View<'_>) -> u32 {
    if view.limits.isolation == Isolation::Connection {
        return 0;
    }
    let per_vm = u64::from(view.limits.soft_limit.max(1)).saturating_mul(1000);
    saturating(view.averages.stable.0 / per_vm)
}

/// How many have been idle for a moment.
fn settled(view: &View<'_>, idle: &Idle, now: Instant) -> usize {
    let limits = view.limits;
    let rest = limits.idle_timeout.saturating_sub(limits.panic_window / SETTLED);
    idle.partition_point(|(at, ..)| *at <= now + rest)
}

/// VMs that the averages fill; all, if there is no load: then every VM is idle, and its timeout counts.
fn needed(view: &View<'_>) -> u32 {
    if view.averages.panic.0 == 0 { u32::MAX } else { sustained(view) }
}

/// VMs that a load as of late needs with room to spare, for it is not idle ones that go.
fn roomy(view: &View<'_>) -> u32 {
    let Averages { stable, panic, .. } = view.averages;
    if panic.0 == 0 {
        return u32::MAX;
    }
    let roomy = Thousandths(stable.0.saturating_mul(1000) / FULL.0);
    vms_for_average(view, roomy).max(view.limits.vms_for(view.averages.peak_demand))
}

/// What `max_down_rate` leaves, rounded down as Knative does it, so that one may always go.
fn slowest(view: &View<'_>) -> u32 {
    let peak = u128::from(view.averages.peak_live) * 1000;
    saturating(peak / u128::from(view.limits.max_down_rate.0.max(1)))
}

/// Those with the fewest requests, the youngest first; not where whoever is in the VM has it for himself.
fn drains(view: &View<'_>, live: u32, count: u32) -> Vec<VmId> {
    if view.limits.isolation != Isolation::Vm || count == 0 {
        return Vec::new();
    }
    let draining = saturating(view.of(Phase::Draining).count());
    let allowed = (live / DRAINING).max(1).saturating_sub(draining);
    let mut busy: Vec<_> = view
        .of(Phase::Ready)
        .filter(|vm| vm.in_flight > 0)
        .map(|vm| (vm.in_flight, Reverse(vm.id)))
        .collect();
    busy.sort_unstable();
    busy.into_iter().take(count.min(allowed) as usize).map(|(_, id)| id.0).collect()
}

/// When the next one may be due.
fn look_again(
    view: &View<'_>,
    idle: &Idle,
    due: usize,
    retired: usize,
    surplus: bool,
    now: Instant,
) -> Option<Instant> {
    let limits = view.limits;
    // Neither a lease's end nor a reset's is an event, nor that a connection takes an idle VM. A busy VM cannot be due
    // before a whole timeout from now; one that is due but still wanted goes when demand falls.
    let connections = limits.isolation == Isolation::Connection;
    let in_use = |vm: &VmView| connections || vm.in_flight > 0 || vm.phase == Phase::Resetting;
    let mut usable = view.of(Phase::Ready).chain(view.of(Phase::Resetting));
    let busy = usable.any(|vm| (connections || watched(vm, surplus)) && in_use(vm));
    let busy = busy.then(|| now + busy_again(limits.idle_timeout));
    let wanted = (retired < due).then(|| now + limits.idle_timeout.clamp(SHORTEST_TICK, TICK));
    let next = idle.get(due).map(|(at, ..)| *at);
    // Requests to a VM that is kept for longer are no events either.
    let kept = (surplus && !longer(view).is_zero()).then(|| now + busy_again(limits.idle_timeout));
    // What changes without an event has to be looked at to be averaged.
    let rises = view.demand(now) > 0 && limits.max > limits.min;
    let falls = surplus && view.averages.stable.0 > 0;
    let sample = (rises || falls).then(|| now + (limits.panic_window / SAMPLE).clamp(SHORTEST_TICK, TICK));
    [busy, wanted, next, kept, sample].into_iter().flatten().min()
}
