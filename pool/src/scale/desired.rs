//! How many VMs a pool wants.

use tokio::time::Instant;
use weir_config::model::Thousandths;

use super::{View, saturating};

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
    // Who waits needs a VM now. A ripple above the soft limit that fits below the hard one passes by.
    let demand = view.demand(now);
    let moment = if view.queued > 0 { limits.vms_for(demand) } else { limits.vms_for_moment(demand) };
    let at_once = moment.max(average.min(limits.vms_for(demand))).max(view.signal.unwrap_or(0));
    let before = view.panic.filter(|panic| now < panic.until);
    let until = if is_sudden(view, average) {
        now.checked_add(limits.stable_window)
    } else {
        before.map(|panic| panic.until)
    };
    let wanted = match until {
        Some(_) => at_once.max(average).max(before.map_or(0, |panic| panic.peak)),
        None => at_once,
    };
    let bounded = wanted.min(most_at_once(view)).max(min).min(limits.max);
    (bounded, until.map(|until| Panic { until, peak: wanted.min(limits.max) }))
}

/// Where there is no VM, there is one to compare with all the same, as of Knative: else every first request were a
/// sudden demand.
fn is_sudden(view: &View<'_>, average: u32) -> bool {
    let ready = u128::from(view.usable().max(1));
    average > 0 && u128::from(average) * 1000 >= ready * u128::from(view.limits.panic_threshold.0)
}

/// What `max_up_rate` allows: a multiple of the VMs that are ready, and one more than them in any case.
fn most_at_once(view: &View<'_>) -> u32 {
    let ready = view.usable();
    let times = u128::from(ready.max(1)) * u128::from(view.limits.max_up_rate.0);
    saturating(times.div_ceil(1000)).max(ready.saturating_add(1))
}

/// VMs that it takes for a demand of so many thousandths of a request.
pub(super) fn vms_for_average(view: &View<'_>, demand: Thousandths) -> u32 {
    view.limits.vms_for(demand.0.div_ceil(1000))
}
