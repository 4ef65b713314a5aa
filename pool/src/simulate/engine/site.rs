//! Everything that belongs to one pool of a run.

use std::time::Duration;

use tokio::time::Instant;

use super::measures::{Measures, Series};
use super::pool::SimPool;
use crate::simulate::policy::Policy;
use crate::simulate::slow::Speeds;
use crate::simulate::start_time::Draws;

/// See the module's documentation.
pub(super) struct Site<'c> {
    pub(super) pool: SimPool<'c>,
    pub(super) policy: Box<dyn Policy>,
    pub(super) draws: Draws,
    pub(super) speeds: Speeds,
    pub(super) look_at: Option<Instant>,
    /// There was no room for a VM that the policy wanted.
    pub(super) starved: bool,
    pub(super) demand: u32,
    pub(super) measures: Measures,
    pub(super) vms: Series,
}

impl Site<'_> {
    pub(super) fn vms(&self) -> u32 {
        u32::try_from(self.pool.vms.len()).unwrap_or(u32::MAX)
    }

    pub(super) fn count_vms(&mut self, at: Duration) {
        self.vms.set(self.vms(), at);
    }

    pub(super) fn may_grow(&self) -> bool {
        self.vms() < self.pool.config.scale.max
    }

    pub(super) fn demand(&mut self, change: i32, now: Instant) {
        self.demand = self.demand.saturating_add_signed(change);
        self.policy.demand(self.demand, now);
    }

    /// All wait equally long at most, so that only those at the front can be due.
    pub(super) fn expire(&mut self, now: Instant) {
        let timeout = self.pool.config.queue.timeout;
        while self.pool.queue.front().is_some_and(|waiting| waiting.since + timeout <= now) {
            self.pool.queue.pop_front();
            self.measures.timed_out += 1;
            self.measures.waits.push(timeout);
            self.demand(-1, now);
        }
    }
}

impl Measures {
    pub(super) fn served(&mut self, wait: Duration, answer: Option<Duration>) {
        self.served += 1;
        self.waits.push(wait);
        self.answers.extend(answer);
    }
}
