//! What a pool should do next: a pure function of what it sees and the time.
//!
//! ```text
//!  in flight, queued ──> demand ──────────────> desired ──> starts (at once)
//!                           └─> windows ─┬─ panic average ─┘ (raises it)
//!                                        └─ stable average ──> retirements (what it fills stays, what it does not
//!                                                               need any more goes)
//! ```
//!
//! Demand is what is in flight on ready VMs plus what waits. The pool wants as many VMs as leave nobody waiting, each with
//! up to `hard_limit` requests, and as the greater of its two averages fills to `soft_limit`; at least what its guests' signal
//! says and its minimum, at most `max`. It starts what is missing at once: a start takes about two milliseconds, so there
//! is nothing to be gained by waiting whether the demand lasts, nor by having VMs ready for the next peak. Otherwise
//! the averages, as of Knative's pod autoscaler (Knative Serving, "Additional autoscaling configuration for KPA"), only
//! hold back and clear away:
//!
//! - **Panic**: demand that was for `panic_window` a multiple of what the ready VMs are for. Nothing is retired until a
//!   whole `stable_window` has passed without.
//! - **Idle**: a VM without a request for `idle_timeout` goes, unless the stable average fills it. The last one may stay for
//!   longer, if requests came back to it before, see [`KeepAlive`].
//! - **Spare**: while there are requests, a VM that neither average fills goes when it has been idle for a moment.
//! - **Surplus**: requests are spread over all VMs, so after a peak none would ever be idle. While there are requests,
//!   what neither the stable average nor the last `panic_window` needs goes although it is used now and then.
//!
//! Every process counts against `max` until it is gone, those being stopped too.
//!
//! Where connections are isolated, each one that holds a VM is demand for one VM whether it has a request in flight or
//! not; but one that has had none for `idle_timeout` is no demand any more, and loses the VM. It loses it earlier if
//! others wait and no VM can be had for them otherwise, the longest idle first.

mod desired;
mod keep;
mod retire;
mod revoke;
mod starts;
mod view;
mod week;
mod windows;

use std::time::Duration;

use tokio::time::Instant;
use weir_vmm::VmId;

pub use desired::Panic;
pub use keep::KeepAlive;
pub use revoke::revocations;
pub use view::{Limits, Phase, Retry, View, VmView, demand, live};
pub use week::WeekTime;
pub use windows::{Averages, Windows};

/// Longest time between two looks at what no event announces.
const TICK: Duration = Duration::from_secs(1);
/// Shortest time between two looks.
const SHORTEST_TICK: Duration = Duration::from_millis(10);

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The minimum that holds now, VMs.
    pub min: u32,
    /// VMs that the pool wants.
    pub desired: u32,
    /// VMs to start now.
    pub start: u32,
    /// VMs that are missing and for which the host has no room.
    pub short: u32,
    /// Idle VMs to stop now, the longest idle first.
    pub retire: Vec<VmId>,
    /// VMs to give no more requests, and to stop when they have none left.
    pub drain: Vec<VmId>,
    /// To be passed in again.
    pub panic: Option<Panic>,
    /// When to decide again if nothing happens before.
    pub look_again: Option<Instant>,
}

/// Decides.
pub fn decide(view: &View<'_>, now: Instant) -> Decision {
    let (min, min_changes) = view.limits.minimum(view.week_time);
    let (desired, panic) = desired::desired(view, min, now);
    let starts = starts::starts(view, desired, min, now);
    let retirements = retire::retirements(view, desired, min, panic.is_some(), now);
    let times = [starts.retry_at, retirements.look_again, min_changes.map(|after| now + after)];
    Decision {
        min,
        desired,
        start: starts.count,
        short: starts.short,
        retire: retirements.retire,
        drain: retirements.drain,
        panic,
        look_again: times.into_iter().flatten().min(),
    }
}

/// How long until a VM that was to be retired and got a request first may be idle again.
pub(crate) fn look_after_miss(view: &View<'_>) -> Duration {
    if view.reclaim > 0 { retire::RECLAIM_TICK } else { busy_again(view.limits.idle_timeout) }
}

/// When a VM that has a request now may be due at the earliest.
fn busy_again(idle_timeout: Duration) -> Duration {
    idle_timeout.max(SHORTEST_TICK)
}

/// `count` as the number of VMs that it is meant to be.
fn saturating(count: impl TryInto<u32>) -> u32 {
    count.try_into().unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
