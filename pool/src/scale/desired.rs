//! How many VMs a pool wants.

use tokio::time::Instant;
use weir_config::model::Thousandths;

use super::{Phase, View, VmView, saturating};

/// This part of an average is no reason for another VM.
const RIPPLE: u64 = 20;

/// Demand was sudden a moment ago.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Panic {
    /// When it is over unless demand is sudden again.
    pub until: Instant,
    /// The most VMs wanted since it began.
    pub peak: u32,
}

/// VMs wanted, and whether in panic. `min` is the minimum that holds now.
pub(super) fn desired(view: &View<'_>, min: u32, now: Instant) -> (u32, Option<Panic>) {
    let limits = view.limits;
    let average = vms_for_average(view, view.averages.panic);
    let sustained = if view.demand(now) > 0 { sustained(view) } else { 0 };
    let at_once = at_once(view, now).max(sustained).max(view.signal.unwrap_or(0));
    let before = view.panic.filter(|panic| now < panic.until);
    let until =
        if is_sudden(view) { now.checked_add(limits.stable_window) } else { before.map(|panic| panic.until) };
    let wanted = match until {
        Some(_) => at_once.max(average).max(before.map_or(0, |panic| panic.peak)),
        None => at_once,
    };
    let bounded = wanted.min(most_at_once(view)).max(min).min(limits.max);
    (bounded, until.map(|until| Panic { until, peak: wanted.min(limits.max) }))
}

/// VMs that it takes to leave nobody waiting: as many more as those need, at the soft limit, who find no place up to
/// the hard limit of a VM that is there.
fn at_once(view: &View<'_>, now: Instant) -> u32 {
    let hard = u64::from(view.limits.hard_limit.max(1));
    let places = |vm: &VmView| if vm.held { 0 } else { hard.saturating_sub(vm.in_flight.into()) };
    let usable = view.of(Phase::Ready).chain(view.of(Phase::Resetting));
    let free = usable.map(places).fold(0, u64::saturating_add);
    let beyond = (view.queued as u64).saturating_sub(free);
    let more = if beyond > 0 { view.usable().saturating_add(view.limits.vms_for(beyond)) } else { 0 };
    more.max(saturating(view.demand(now).div_ceil(hard)))
}

/// VMs that the averages fill to the soft limit. A little more is not worth another one: at a demand that fills its VMs
/// exactly, a pool would change its mind with each sample.
pub(super) fn sustained(view: &View<'_>) -> u32 {
    let average = view.averages.stable.max(view.averages.panic);
    vms_for_average(view, Thousandths(average.0 - average.0 / RIPPLE))
}

/// Where there is no VM, there is one to compare with all the same, as of Knative: else every first request were a
/// sudden demand.
fn is_sudden(view: &View<'_>) -> bool {
    let meant_for = u128::from(view.usable().max(1)) * u128::from(view.limits.soft_limit.max(1));
    let demand = u128::from(view.averages.panic.0);
    demand > 0 && demand >= meant_for * u128::from(view.limits.panic_threshold.0)
}

/// What `max_up_rate` allows: a multiple of the VMs that are ready, and one more than them in any case.
fn most_at_once(view: &View<'_>) -> u32 {
    let ready = view.usable();
    let times = u128::from(ready.max(1)) * u128::from(view.limits.max_up_rate.0);
    saturating(times.div_ceil(1000)).max(ready.saturating_add(1))
}

/// VMs that it takes for a demand of so many thousandths of a request.
pub(super) fn vms_for_average(view: &View<'_>, demand: Thousandths) -> u32 {
    let per_vm = u64::from(view.limits.soft_limit.max(1)) * 1000;
    saturating(demand.0.div_ceil(per_vm))
}
