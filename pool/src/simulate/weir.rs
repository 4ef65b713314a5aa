//! weir's own policy: the `decide` that production runs.

use tokio::time::Instant;
use weir_config::model::{Isolation, Pool};

use super::policy::{Actions, Policy, Seen};
use crate::decide::{Limits, Retry, View, decide};

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Weir {
    limits: Limits,
}

impl Weir {
    pub(crate) fn new(pool: &Pool) -> Self {
        let limits = Limits {
            min: pool.scale.min,
            max: pool.scale.max,
            soft_limit: pool.soft_limit,
            idle_timeout: pool.scale.idle_timeout,
            connections: pool.isolation == Isolation::Connection,
        };
        Self { limits }
    }
}

impl Policy for Weir {
    fn decide(&mut self, seen: &Seen<'_>, now: Instant) -> Actions {
        let view = View { limits: self.limits, queued: seen.queued, vms: seen.vms, retry: Retry::Free };
        let decision = decide(&view, now);
        Actions { start: decision.start, drain: decision.retire, look_again: decision.look_again }
    }
}
