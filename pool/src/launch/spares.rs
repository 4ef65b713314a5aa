//! Children that are ready before anybody needs them, so that a start does not wait for a fork, a jail and a VM.
//!
//! ```text
//!            refill, a moment after a start                take
//!  (none) ───────────────────────────────> idle ──────────────────────> a VM
//!                                            │ found dead when taken: forgotten, the next one is tried
//! ```
//! How many: as many as were taken within one of the last [`SLOTS`] short slots, see [`Demand`].

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};
use weir_vmm::cgroup::CgroupPool;

use super::child::Child;
use super::connection::Connection;
use super::group::Group;
use crate::launcher::StartError;

/// Kept in any case.
const LEAST: u32 = 2;
/// Each costs some 0.6 MiB.
const MOST: u32 = 48;
/// How long a slot of [`Demand`] is.
const SLOT: Duration = Duration::from_millis(250);
/// How many of them are remembered.
const SLOTS: u32 = 120;
/// A start that is on its way needs the CPU more than the next one's child.
const PAUSE: Duration = Duration::from_millis(5);
/// The pause after a fork that failed.
const RETRY: Duration = Duration::from_secs(1);

/// One launcher's idle children.
#[derive(Debug)]
pub(super) struct Spares {
    connection: Arc<Connection>,
    groups: Option<CgroupPool>,
    state: Mutex<State>,
    taken: Notify,
}

#[derive(Debug)]
struct State {
    idle: VecDeque<Child>,
    demand: Demand,
}

/// A child, and whether it was there beforehand.
pub(super) struct Taken {
    pub(super) child: Child,
    pub(super) spare: bool,
}

impl Spares {
    pub(super) fn new(connection: Arc<Connection>, groups: Option<CgroupPool>) -> Arc<Self> {
        let demand = Demand::new(Instant::now());
        let state = Mutex::new(State { idle: VecDeque::new(), demand });
        Arc::new(Self { connection, groups, state, taken: Notify::new() })
    }

    /// A child that waits for its order: an idle one, or a new one.
    pub(super) async fn take(&self) -> Result<Taken, StartError> {
        self.state.lock().demand.count(Instant::now());
        while let Some(child) = self.pop() {
            match child.is_waiting() {
                Ok(()) => return Ok(Taken { child, spare: true }),
                Err(reason) => tracing::warn!(reason, "a spare child has ended"),
            }
        }
        Ok(Taken { child: self.fork().await?, spare: false })
    }

    async fn fork(&self) -> Result<Child, StartError> {
        let child = self.connection.fork().await?;
        let group = self.groups.as_ref().map(|groups| Group::of(groups, &child.process, child.pid));
        Ok(Child { group: group.transpose()?, ..child })
    }

    /// The longest idle one: it has certainly finished its preparations.
    fn pop(&self) -> Option<Child> {
        let child = self.state.lock().idle.pop_front();
        self.taken.notify_one();
        child
    }

    /// Keeps children ready for as long as it runs.
    pub(super) async fn refill(&self) {
        loop {
            let missing = {
                let mut state = self.state.lock();
                let target = state.demand.target(Instant::now());
                state.idle.truncate(target as usize);
                state.idle.len() < target as usize
            };
            if !missing {
                // A smaller demand is noticed without a start.
                let _ = tokio::time::timeout(SLOT * 4, self.taken.notified()).await;
                sleep(PAUSE).await;
                continue;
            }
            match self.fork().await {
                Ok(child) => self.state.lock().idle.push_back(child),
                Err(StartError::LauncherDied) => return,
                Err(error) => {
                    tracing::warn!(%error, "no spare child");
                    sleep(RETRY).await;
                }
            }
        }
    }
}

/// How many children were taken lately.
#[derive(Debug)]
pub(super) struct Demand {
    /// Starts per slot, the current one last.
    slots: VecDeque<u32>,
    /// When the current one began.
    since: Instant,
}

impl Demand {
    pub(super) fn new(now: Instant) -> Self {
        Self { slots: VecDeque::from([0]), since: now }
    }

    /// A child is taken at `now`.
    pub(super) fn count(&mut self, now: Instant) {
        self.advance(now);
        if let Some(current) = self.slots.back_mut() {
            *current = current.saturating_add(1);
        }
    }

    /// How many to keep at `now`: the most that one slot took, within bounds.
    pub(super) fn target(&mut self, now: Instant) -> u32 {
        self.advance(now);
        self.slots.iter().copied().max().unwrap_or(0).clamp(LEAST, MOST)
    }

    fn advance(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.since).as_nanos() / SLOT.as_nanos();
        let passed = u32::try_from(passed).unwrap_or(u32::MAX);
        self.since = self.since.checked_add(SLOT.saturating_mul(passed)).unwrap_or(now);
        for _ in 0..passed.min(SLOTS) {
            self.slots.push_back(0);
        }
        while self.slots.len() > SLOTS as usize {
            self.slots.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_burst_is_remembered_and_then_forgotten() {
        let start = Instant::now();
        let mut demand = Demand::new(start);
        assert_eq!(demand.target(start), LEAST);
        (0..10).for_each(|_| demand.count(start + SLOT / 2));
        assert_eq!(demand.target(start + SLOT * 100), 10);
        assert_eq!(demand.target(start + SLOT * (SLOTS + 1)), LEAST);
    }

    proptest! {
        #[test]
        fn the_target_is_within_bounds_and_never_above_what_was_taken(
            gaps in proptest::collection::vec(0u64..2_000_000_000, 1..300),
        ) {
            let mut now = Instant::now();
            let mut demand = Demand::new(now);
            for (taken, gap) in (1u32..).zip(gaps) {
                now += Duration::from_nanos(gap);
                demand.count(now);
                let target = demand.target(now);
                prop_assert!((LEAST..=MOST).contains(&target));
                prop_assert!(target <= taken.max(LEAST));
            }
        }
    }
}
