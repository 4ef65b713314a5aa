//! The task that owns one pool: it alone starts and stops the pool's VMs.
//!
//! It runs a pass whenever something happened (a VM became READY or ended, a request began to wait, the last lease of
//! a draining VM ended, the host's budget has an answer) or a time that it set has come. A pass looks at everything
//! anew, so that events may coalesce and none needs an answer of its own. The VMs' lives are drawn in
//! [`crate::roster`].

mod configuring;
mod events;
mod rolling;
mod scaling;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use futures::future::OptionFuture;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use crate::backoff::Backoff;
use crate::budget::Share;
use crate::launcher::Launcher;
use crate::lease::LeaseError;
use crate::rollout::{Drains, Rollout};
use crate::roster::Roster;
use crate::scale::{KeepAlive, Limits, Panic, Windows};
use crate::shared::{Shared, whole_seconds};

use configuring::Outdated;
pub(crate) use events::{Event, Suspicion};

/// For so long after a READY, requests in the queue are spread over the VMs that are still starting instead of
/// filling the first one. VMs that are started together come up within this, or not soon.
pub(crate) const SPREAD: Duration = Duration::from_millis(50);

/// As many events are taken in before a pass, if there are so many: a pass takes as long as there are VMs, and with one for
/// each event thousands that come up together, or go, would take the square of that.
const EVENTS: usize = 1024;

/// See the module's documentation.
pub(crate) struct Owner {
    shared: Arc<Shared>,
    launcher: Arc<dyn Launcher>,
    share: Share,
    ids: Arc<AtomicU64>,
    inbox: mpsc::UnboundedReceiver<Event>,
    roster: Roster,
    backoff: Backoff,
    rollout: Rollout,
    drains: Drains,
    outdated: Outdated,
    limits: Arc<Limits>,
    windows: Windows,
    keep_alive: KeepAlive,
    panic: Option<Panic>,
    shutdown: Option<Instant>,
    /// A VM is missing because the host has no room for it.
    starved: bool,
    /// VMs that the pool may have in all.
    due: u32,
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.shared.metrics.rest();
        // It and its VMs know each other.
        self.shared.set_ready(Vec::new());
        // Nobody would ever be served. Nothing of this if it has been shut down.
        self.shared.close();
        self.shared.fail_waiting(&LeaseError::ShuttingDown);
    }
}

impl Owner {
    pub(crate) fn new(
        shared: Arc<Shared>,
        launcher: Arc<dyn Launcher>,
        share: Share,
        ids: Arc<AtomicU64>,
        inbox: mpsc::UnboundedReceiver<Event>,
    ) -> Self {
        let limits = Arc::new(Limits::of(&shared.config()));
        Self {
            shared,
            launcher,
            share,
            ids,
            inbox,
            roster: Roster::default(),
            backoff: Backoff::default(),
            rollout: Rollout::default(),
            drains: Drains::default(),
            outdated: Outdated::default(),
            windows: Windows::new(&limits),
            keep_alive: KeepAlive::default(),
            limits,
            panic: None,
            shutdown: None,
            starved: false,
            due: u32::MAX,
        }
    }

    /// Until shut down and every VM is gone.
    pub(crate) async fn run(mut self) {
        let mut events = Vec::new();
        loop {
            let look_again = self.pass(Instant::now());
            if self.shutdown.is_some() && self.roster.instances().total() == 0 && self.shared.waiting() == 0 {
                return;
            }
            tokio::select! {
                _ = self.inbox.recv_many(&mut events, EVENTS) => {}
                () = self.shared.wake.notified() => {}
                () = self.share.changed() => {}
                Some(()) = OptionFuture::from(look_again.map(sleep_until)) => {}
            }
            self.apply(events.drain(..), Instant::now());
        }
    }

    /// Looks at everything and does what is due; when to look again.
    fn pass(&mut self, now: Instant) -> Option<Instant> {
        self.fail_hopeless(now);
        let scale_at = match self.shutdown {
            Some(until) => self.shut_down(until, now),
            None => self.scale(&self.limits.clone(), now),
        };
        let roll_at = self.roll(now);
        let eased_at = self.roster.look_at_eased(now);
        self.roster.stop_drained();
        self.drains.tell(|before| self.roster.is_past(before));
        let lapse_at = self.roster.lapse_turns(now);
        let spread_until = self.publish(now);
        self.shared.dispatch(now);
        [scale_at, roll_at, eased_at, lapse_at, spread_until].into_iter().flatten().min()
    }

    /// Requests do not wait for what has failed again and again, and is not tried again yet.
    fn fail_hopeless(&self, now: Instant) {
        if self.shared.waiting() == 0 || self.roster.live() > 0 {
            return;
        }
        if let Some((reason, delay)) = self.backoff.hopeless(self.shared.config().queue.timeout, now) {
            let (reason, retry_after) = (reason.to_owned(), whole_seconds(delay));
            self.shared.fail_waiting(&LeaseError::StartFailed { reason, retry_after });
        }
    }

    /// One step towards the end: the queue first, then the leases, then, at `until`, by force.
    fn shut_down(&mut self, until: Instant, now: Instant) -> Option<Instant> {
        if now >= until {
            self.shared.fail_waiting(&LeaseError::ShuttingDown);
            self.roster.stop_all();
            return None;
        }
        let scale_at = if self.shared.waiting() > 0 {
            self.scale(&self.limits.without_minimum(), now)
        } else {
            self.roster.drain_all();
            // Whoever waits for a turn is given it, and nobody here would take it.
            drop(self.share.turns(0));
            None
        };
        Some(scale_at.map_or(until, |at| at.min(until)))
    }

    /// Shows requests and metrics the pool as it is now; until when requests are spread.
    fn publish(&mut self, now: Instant) -> Option<Instant> {
        let instances = self.roster.instances();
        let config = self.shared.config();
        let hard_limit = config.hard_limit;
        let latest = self.roster.ready_vms().map(|vm| vm.ready_at).max();
        let spread_until = latest.map(|at| at + SPREAD).filter(|at| instances.starting > 0 && now < *at);
        self.shared.set_queued_limit(if spread_until.is_some() {
            let fair = self.shared.waiting().div_ceil(instances.starting as usize + 1);
            u32::try_from(fair).unwrap_or(u32::MAX).max(config.soft_limit).min(hard_limit)
        } else {
            hard_limit
        });
        self.shared.set_may_grow(instances.total() < config.scale.max);
        let ready = self.roster.changed_ready();
        let others = ready.is_some();
        if let Some(ready) = ready {
            self.shared.set_ready(ready);
        }
        let changed = self.shared.instances.send_if_modified(|published| {
            // As many of them as before need not be the same ones.
            std::mem::replace(published, instances) != instances || others
        });
        if changed {
            self.shared.metrics.set_instances(instances);
        }
        spread_until
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::HostBudget;
    use crate::fake::{self, Boot, FakeLauncher, Script};
    use crate::queue::Caller;

    #[tokio::test(start_paused = true)]
    async fn who_waits_when_the_owner_is_lost_and_who_comes_later_is_told() {
        let host = HostBudget::new(&fake::config([fake::pool("p")])).expect("the host has room");
        let (shared, inbox) = Shared::unowned();
        let launcher = FakeLauncher::new(Script::boot(Boot::Silent));
        let share = host.share(&shared.config());
        let owner = Owner::new(shared.clone(), launcher, share, Arc::default(), inbox);
        let caller = Caller::anonymous();
        let mut waits = Box::pin(shared.lease(&caller, Instant::now));
        assert!(futures::poll!(&mut waits).is_pending());
        let begin = Instant::now();
        drop(owner);
        assert_eq!(waits.await.unwrap_err(), LeaseError::ShuttingDown);
        assert_eq!(shared.lease(&caller, Instant::now).await.unwrap_err(), LeaseError::ShuttingDown);
        assert_eq!(Instant::now(), begin);
    }
}
