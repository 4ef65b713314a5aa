//! The task that owns one pool: it alone starts and stops the pool's VMs.
//!
//! It runs a pass whenever something happened (a VM became READY or ended, a request began to wait, the last lease of
//! a draining VM ended, another pool gave memory back) or a time that it set has come. A pass looks at everything
//! anew, so that events may coalesce and none needs an answer of its own. The VMs' lives are drawn in
//! [`crate::roster`].

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use futures::future::OptionFuture;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};
use weir_config::model::Isolation;
use weir_vmm::{ExitReason, VmId};

use crate::backoff::{Backoff, Came, LASTING};
use crate::budget::Share;
use crate::decide::{Decision, Limits, View, busy_again, decide, revocations};
use crate::drive::{End, drive};
use crate::gate::State;
use crate::launcher::{Launcher, StartKind, StartOrder};
use crate::lease::LeaseError;
use crate::roster::{Life, Roster};
use crate::shared::{Shared, whole_seconds};
use crate::vm::Vm;

/// For so long after a READY, requests in the queue are spread over the VMs that are still starting instead of
/// filling the first one. VMs that are started together come up within this, or not soon.
pub(crate) const SPREAD: Duration = Duration::from_millis(50);

/// What the owner is told.
#[derive(Debug)]
pub(crate) enum Event {
    /// A VM takes requests.
    Ready { vm: Vm, kind: StartKind },
    /// A VM's process is gone, or never was.
    Gone { id: VmId, end: End },
    /// A VM refused a request; its gate is closed.
    Suspect(VmId),
    /// End everything; by force from `until` on.
    Shutdown { until: Instant },
}

/// See the module's documentation.
pub(crate) struct Owner {
    shared: Arc<Shared>,
    launcher: Arc<dyn Launcher>,
    share: Arc<Share>,
    given_back: watch::Receiver<()>,
    ids: Arc<AtomicU64>,
    inbox: mpsc::UnboundedReceiver<Event>,
    roster: Roster,
    backoff: Backoff,
    shutdown: Option<Instant>,
    /// A VM is missing because the host has no room for it.
    starved: bool,
}

impl Owner {
    pub(crate) fn new(
        shared: Arc<Shared>,
        launcher: Arc<dyn Launcher>,
        share: Arc<Share>,
        ids: Arc<AtomicU64>,
        inbox: mpsc::UnboundedReceiver<Event>,
    ) -> Self {
        let given_back = share.given_back();
        Self {
            shared,
            launcher,
            share,
            given_back,
            ids,
            inbox,
            roster: Roster::default(),
            backoff: Backoff::default(),
            shutdown: None,
            starved: false,
        }
    }

    /// Until shut down and every VM is gone.
    pub(crate) async fn run(mut self) {
        loop {
            let look_again = self.pass(Instant::now());
            if self.shutdown.is_some() && self.roster.instances().total() == 0 && self.shared.waiting() == 0 {
                return;
            }
            tokio::select! {
                event = self.inbox.recv() => {
                    let event = event.expect("the inbox is open: `shared` has a sender");
                    self.apply(event, Instant::now());
                }
                () = self.shared.wake.notified() => {}
                _ = self.given_back.changed(), if self.starved => {}
                Some(()) = OptionFuture::from(look_again.map(sleep_until)) => {}
            }
        }
    }

    fn apply(&mut self, event: Event, now: Instant) {
        // First, so that a failure counts after the success that came before it.
        for vm in self.roster.ready_vms() {
            self.backoff.still_ready(vm.ready_at, now);
        }
        match event {
            Event::Ready { vm, kind } => self.ready(vm, kind, now),
            Event::Gone { id, end } => self.gone(id, &end, now),
            Event::Suspect(id) => self.suspect(id, now),
            Event::Shutdown { until } => {
                self.shared.close();
                self.shutdown = Some(self.shutdown.map_or(until, |earlier| earlier.min(until)));
            }
        }
    }

    /// Looks at everything and does what is due; when to look again.
    fn pass(&mut self, now: Instant) -> Option<Instant> {
        self.fail_hopeless(now);
        let scale_at = match self.shutdown {
            Some(until) => self.shut_down(until, now),
            None => self.scale(self.shared.config.scale.min, now),
        };
        self.roster.stop_drained();
        let spread_until = self.publish(now);
        self.shared.dispatch(now);
        scale_at.into_iter().chain(spread_until).min()
    }

    fn scale(&mut self, min: u32, now: Instant) -> Option<Instant> {
        // Before looking, so that what comes too late to be seen wakes; `publish` takes it back.
        self.shared.set_may_grow(true);
        let config = self.shared.config.clone();
        let vms = self.roster.views();
        let view = View {
            limits: Limits {
                min,
                max: config.scale.max,
                soft_limit: config.soft_limit,
                idle_timeout: config.scale.idle_timeout,
                connections: config.isolation == Isolation::Connection,
            },
            queued: self.shared.waiting(),
            vms: &vms,
            retry: self.backoff.retry(now),
        };
        let decision = decide(&view, now);
        self.shared.metrics.desired.set(decision.desired.into());
        let missed = self.retire(&decision);
        let started = self.start(decision.start, now);
        self.revoke(&revocations(&view, &decision.retire, started, now));
        let retry = missed.then(|| now + busy_again(config.scale.idle_timeout));
        decision.look_again.into_iter().chain(retry).min()
    }

    /// Whether one of them is not idle any more.
    fn retire(&mut self, decision: &Decision) -> bool {
        let mut missed = false;
        for id in &decision.retire {
            if self.roster.retire(*id) {
                tracing::info!(pool = self.shared.config.name, vm = %id, "vm idle");
            } else {
                missed = true;
            }
        }
        missed
    }

    fn revoke(&mut self, ids: &[VmId]) {
        for id in ids {
            // One that has a request again keeps its VM; who waits will look again when that has ended.
            if let Some(vm) = self.roster.revoke(*id) {
                tracing::debug!(pool = self.shared.config.name, vm = %id, "vm taken from an idle connection");
                self.shared.reset(vm);
            }
        }
    }

    /// How many there was room for.
    fn start(&mut self, count: u32, now: Instant) -> u32 {
        let was_starved = std::mem::take(&mut self.starved);
        for started in 0..count {
            let Some(room) = self.share.reserve() else {
                self.starved = true;
                if !was_starved {
                    tracing::warn!(pool = self.shared.config.name, "host budget exhausted, vm start waits");
                }
                return started;
            };
            let id = VmId(self.ids.fetch_add(1, Relaxed));
            tracing::info!(pool = self.shared.config.name, vm = %id, "vm starting");
            let order = StartOrder { id, pool: self.shared.config.clone() };
            let (stop, stopped) = oneshot::channel();
            self.roster.starting(id, stop, room, now);
            tokio::spawn(drive(self.launcher.clone(), order, stopped, self.shared.clone()));
        }
        count
    }

    fn ready(&mut self, vm: Vm, kind: StartKind, now: Instant) {
        let (id, address) = (vm.id, vm.address);
        if let Some(started_at) = self.roster.ready(vm) {
            let took = now.duration_since(started_at);
            let (pool, kind_word, start_ms) =
                (&self.shared.config.name, kind.label(), took.as_secs_f64() * 1e3);
            tracing::info!(pool, vm = %id, %address, kind = kind_word, start_ms, "vm ready");
            self.shared.metrics.started(kind, took);
            self.backoff.ready();
        }
    }

    fn gone(&mut self, id: VmId, end: &End, now: Instant) {
        let Some(entry) = self.roster.gone(id) else { return };
        self.shared.metrics.exited(end.label());
        // Where there is no snapshot to go back to, that is how it is.
        let instead_of_reset = matches!(end, End::Exited(ExitReason::Stopped));
        let (pool, end, reason) = (&self.shared.config.name, end.label(), end.describe());
        match entry.life {
            Life::Ready(vm) if instead_of_reset && vm.gate.state().1 == State::Dirty => {
                tracing::info!(pool, vm = %id, end, reason, "vm ended instead of going back to its snapshot");
            }
            Life::Stopping => tracing::info!(pool, vm = %id, end, reason, "vm stopped"),
            Life::Starting => {
                tracing::warn!(pool, vm = %id, end, reason, "vm start failed");
                self.failed(entry.started_at, Came::Nowhere, reason, now);
            }
            Life::Ready(vm) | Life::Draining(vm) => {
                tracing::warn!(pool, vm = %id, end, reason, "vm ended unasked");
                self.failed_if_young(entry.started_at, vm.ready_at, reason, now);
            }
        }
    }

    fn suspect(&mut self, id: VmId, now: Instant) {
        let pool = &self.shared.config.name;
        if let Some((started_at, Life::Draining(vm))) =
            self.roster.drain(id).map(|entry| (entry.started_at, &entry.life))
        {
            tracing::warn!(pool, vm = %id, "vm refused a request, draining");
            let ready_at = vm.ready_at;
            self.failed_if_young(started_at, ready_at, "refused a request".to_owned(), now);
        }
    }

    fn failed_if_young(&mut self, started_at: Instant, ready_at: Instant, reason: String, now: Instant) {
        if now.duration_since(ready_at) < LASTING {
            self.failed(started_at, Came::ToReady, reason, now);
        }
    }

    fn failed(&mut self, started_at: Instant, came: Came, reason: String, now: Instant) {
        let delay = self.backoff.failed(started_at, came, reason, now);
        tracing::warn!(pool = self.shared.config.name, ?delay, "backing off");
    }

    /// Requests do not wait for what has failed again and again, and is not tried again yet.
    fn fail_hopeless(&self, now: Instant) {
        let instances = self.roster.instances();
        if self.shared.waiting() == 0 || instances.starting + instances.ready > 0 {
            return;
        }
        if let Some((reason, delay)) = self.backoff.hopeless(now) {
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
            self.scale(0, now)
        } else {
            self.roster.drain_all();
            None
        };
        Some(scale_at.map_or(until, |at| at.min(until)))
    }

    /// Shows requests and metrics the pool as it is now; until when requests are spread.
    fn publish(&mut self, now: Instant) -> Option<Instant> {
        let instances = self.roster.instances();
        let hard_limit = self.shared.config.hard_limit;
        let latest = self.roster.ready_vms().map(|vm| vm.ready_at).max();
        let spread_until = latest.map(|at| at + SPREAD).filter(|at| instances.starting > 0 && now < *at);
        self.shared.set_queued_limit(if spread_until.is_some() {
            let fair = self.shared.waiting().div_ceil(instances.starting as usize + 1);
            u32::try_from(fair).unwrap_or(u32::MAX).max(self.shared.config.soft_limit).min(hard_limit)
        } else {
            hard_limit
        });
        self.shared.set_may_grow(instances.total() < self.shared.config.scale.max);
        if let Some(ready) = self.roster.changed_ready() {
            self.shared.set_ready(ready);
        }
        let changed = self
            .shared
            .instances
            .send_if_modified(|published| std::mem::replace(published, instances) != instances);
        if changed {
            self.shared.metrics.set_instances(instances);
        }
        spread_until
    }
}
