//! How many VMs to start.

use tokio::time::Instant;

use super::{Phase, Retry, View, live, saturating};

/// What is to be started.
pub(super) struct Starts {
    pub(super) count: u32,
    /// Missing, but the host has no room.
    pub(super) short: u32,
    /// When to try again if it is too early.
    pub(super) retry_at: Option<Instant>,
}

pub(super) fn starts(view: &View<'_>, desired: u32, min: u32, now: Instant) -> Starts {
    let live = live(view.vms);
    // Whoever has to give VMs back does not start others, but for its minimum.
    let wanted = if view.reclaim > 0 { desired.min(min) } else { desired };
    let missing = wanted.saturating_sub(live);
    let missing = missing.min(view.limits.max.saturating_sub(saturating(view.vms.len())));
    let one_at_a_time = || if view.of(Phase::Starting).next().is_some() { 0 } else { missing.min(1) };
    let (allowed, retry_at) = match view.retry {
        Retry::Free => (missing, None),
        Retry::At(at) if now < at => (0, (missing > 0).then_some(at)),
        Retry::Probe | Retry::At(_) => (one_at_a_time(), None),
    };
    let count = allowed.min(view.room);
    Starts { count, short: allowed - count, retry_at }
}
