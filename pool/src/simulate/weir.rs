//! weir's own policy: the `decide` that production runs, on the averages that production keeps.
//!
//! As there, demand is known only when somebody looks. A trace begins on a Monday, 00:00 UTC.

use std::time::{Duration, UNIX_EPOCH};

use tokio::time::Instant;

use super::policy::{Actions, Policy, Seen};
use crate::scale::{KeepAlive, Limits, Panic, View, WeekTime, Windows, decide, demand, live};

/// From the epoch, a Thursday, to the first Monday.
const MONDAY: Duration = Duration::from_secs(4 * 86_400);

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Weir {
    limits: Limits,
    windows: Windows,
    keep_alive: KeepAlive,
    panic: Option<Panic>,
    begin: Instant,
}

impl Weir {
    pub(crate) fn new(limits: Limits, begin: Instant) -> Self {
        Self { windows: Windows::new(&limits), keep_alive: KeepAlive::default(), panic: None, begin, limits }
    }
}

impl Policy for Weir {
    fn decide(&mut self, seen: &Seen<'_>, now: Instant) -> Actions {
        let limits = &self.limits;
        let demand = demand(limits, seen.queued, seen.vms, now);
        let averages = self.windows.observe(demand, live(seen.vms), now);
        let view = View {
            averages,
            keep: self.keep_alive.observe(limits, demand, seen.vms, now),
            panic: self.panic,
            week_time: WeekTime::of(UNIX_EPOCH + MONDAY + (now - self.begin)),
            ..View::new(limits, seen.queued, seen.vms)
        };
        let decision = decide(&view, now);
        self.panic = decision.panic;
        let drain = [decision.retire, decision.drain].concat();
        Actions { start: decision.start, drain, look_again: decision.look_again }
    }
}
