//! What requests and the owner task of one pool share: the ready list and the wait queue.
//!
//! A request that finds room takes it here and now. What one does that finds none is in [`wait`].

mod wait;

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;
use weir_config::model;

use crate::choice::{Entered, Member, Ready};
use crate::gate::Left;
use crate::health::Quarantine;
use crate::lease::{Lease, LeaseError, Start};
use crate::metrics::PoolSeries;
use crate::network::{Network, OwnNetwork};
use crate::owner::{Event, Suspicion};
use crate::pool::Instances;
use crate::queue::{Caller, WaitQueue};
use crate::signal::Signalled;
use crate::vm::Vm;

/// One pool's state outside its owner task.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) name: String,
    /// When its VMs go back to their snapshot, which never changes.
    pub(crate) isolation: model::Isolation,
    /// What it is now. Only the owner stores.
    config: ArcSwap<model::Pool>,
    /// Tells those who look at `config` from time to time that it is another one.
    pub(crate) configured: watch::Sender<()>,
    pub(crate) metrics: PoolSeries,
    pub(crate) quarantine: Quarantine,
    /// VMs that take requests, oldest first. Only the owner stores.
    ready: ArcSwap<Ready>,
    queue: Mutex<WaitQueue>,
    /// `queue`'s length, for those who do not lock it.
    waiting: AtomicUsize,
    /// Requests that were not let wait since the owner asked.
    rejected: AtomicUsize,
    /// How far requests from the queue may fill a VM; the owner keeps it between the soft and the hard limit.
    queued_limit: AtomicU32,
    /// Whether more demand could start another VM.
    may_grow: AtomicBool,
    closed: AtomicBool,
    /// Nobody can send requests any more.
    pub(crate) released: Notify,
    /// Tells the owner to look again.
    pub(crate) wake: Notify,
    pub(crate) events: mpsc::UnboundedSender<Event>,
    pub(crate) instances: watch::Sender<Instances>,
    pub(crate) signalled: Signalled,
    /// Where its VMs, or servers, are.
    pub(crate) network: Arc<dyn Network>,
}

impl Shared {
    /// Of a pool whose VMs are in weir's own network.
    pub(crate) fn new(
        config: Arc<model::Pool>,
        metrics: PoolSeries,
        events: mpsc::UnboundedSender<Event>,
    ) -> Arc<Self> {
        Self::reaching(Arc::new(OwnNetwork), config, metrics, events)
    }

    /// Of a pool that is in `network`.
    pub(crate) fn reaching(
        network: Arc<dyn Network>,
        config: Arc<model::Pool>,
        metrics: PoolSeries,
        events: mpsc::UnboundedSender<Event>,
    ) -> Arc<Self> {
        Arc::new(Self {
            network,
            quarantine: Quarantine::new(&config.quarantine, metrics.quarantine_entries.clone()),
            metrics,
            ready: ArcSwap::default(),
            queue: Mutex::new(WaitQueue::new(&config.queue)),
            waiting: AtomicUsize::new(0),
            rejected: AtomicUsize::new(0),
            queued_limit: AtomicU32::new(config.hard_limit),
            may_grow: AtomicBool::new(true),
            closed: AtomicBool::new(false),
            released: Notify::new(),
            wake: Notify::new(),
            events,
            instances: watch::Sender::new(Instances::default()),
            signalled: Signalled::default(),
            name: config.name.clone(),
            isolation: config.isolation,
            configured: watch::Sender::new(()),
            config: ArcSwap::new(config),
        })
    }

    /// One of a pool that nobody owns, and what its owner would be told.
    #[cfg(test)]
    pub(crate) fn unowned() -> (Arc<Self>, mpsc::UnboundedReceiver<Event>) {
        let metrics = crate::PoolMetrics::register(&prometheus::Registry::new()).expect("none is registered");
        let config = Arc::new(crate::fake::pool("p"));
        let (events, inbox) = mpsc::unbounded_channel();
        (Self::new(config, metrics.series("p"), events), inbox)
    }

    /// A lease of a warm VM, or a place in the queue until there is one; `since` says when the request came.
    pub(crate) async fn lease(
        self: &Arc<Self>,
        caller: &Caller,
        since: impl FnOnce() -> Instant,
    ) -> Result<Lease, LeaseError> {
        let lease = match self.lease_warm() {
            Some(lease) => Ok(lease),
            // Only here it matters what time it is, and to ask takes as long as the rest of a warm lease.
            None => self.wait(caller, since(), Instant::now()).await,
        };
        lease.inspect_err(|error| self.metrics.shed(error.label()))
    }

    /// Only when nobody waits: who came first goes first.
    fn lease_warm(self: &Arc<Self>) -> Option<Lease> {
        if self.is_closed() || self.waiting() > 0 {
            return None;
        }
        let ready = self.ready.load();
        let Entered { vm, above_soft } = ready.enter(rand::random())?;
        if above_soft && self.may_grow.load(SeqCst) {
            self.wake.notify_one();
        }
        Some(Lease::entered(vm.clone(), Start::Warm, Duration::ZERO))
    }

    /// A lease of the warm VM that `rank` puts highest, if one that it ranks has room. Only when nobody waits, too.
    pub(crate) fn lease_ranked(self: &Arc<Self>, rank: impl Fn(Member) -> Option<u64>) -> Option<Lease> {
        if self.is_closed() || self.waiting() > 0 {
            return None;
        }
        let ready = self.ready.load();
        let vm = ready.enter_ranked(rank)?;
        if ready.is_above_soft(vm) && self.may_grow.load(SeqCst) {
            self.wake.notify_one();
        }
        Some(Lease::entered(vm.clone(), Start::Warm, Duration::ZERO))
    }

    /// A lease of `vm` has ended.
    pub(crate) fn leave(self: &Arc<Self>, vm: &Arc<Vm>, now: Instant) {
        match vm.leave(now) {
            Left::ClosedEmpty => {
                self.quarantine.judge(&vm.inquest.close(), now);
                self.wake.notify_one();
            }
            Left::Dirty => self.reset(vm),
            // Those who wait may have it if there is no other, which the owner decides.
            Left::Idle if self.waiting() > 0 => self.wake.notify_one(),
            Left::Open(inside) => self.ready.load().made_room(vm, inside),
            Left::Idle => {}
        }
        self.hand_over(vm, now);
    }

    /// The tenancy of `vm` that holds this generation has ended.
    pub(crate) fn end_tenancy(&self, vm: &Arc<Vm>, generation: u32) {
        if vm.gate.end(generation) {
            self.reset(vm);
        }
    }

    /// `vm`'s gate has become dirty.
    pub(crate) fn reset(&self, vm: &Arc<Vm>) {
        self.metrics.resets.inc();
        vm.reset();
    }

    /// `vm` is clean again, `took` after it was to be. Not by way of the owner: those who wait for it are in a hurry.
    pub(crate) fn renewed(self: &Arc<Self>, vm: &Arc<Vm>, took: Duration, now: Instant) {
        if vm.gate.renew() {
            self.metrics.reset_duration.observe(took.as_secs_f64());
            self.ready.load().made_room(vm, 0);
            self.hand_over(vm, now);
        }
    }

    /// `vm` is not to be chosen again.
    pub(crate) fn suspect(&self, vm: &Vm, why: Suspicion) {
        if vm.gate.close().first {
            // Fails only when the owner is gone, and then so are its VMs.
            drop(self.events.send(Event::Suspect(vm.id, why)));
        }
    }

    /// The pool's configuration as it is now.
    pub(crate) fn config(&self) -> Arc<model::Pool> {
        self.config.load_full()
    }

    /// The owner's: from now on the pool is so. Its name and isolation are the same.
    pub(crate) fn configure(&self, config: Arc<model::Pool>) {
        self.quarantine.configure(&config.quarantine);
        self.queue.lock().set_bounds(&config.queue);
        self.config.store(config);
        self.configured.send_replace(());
    }

    /// `vm` is better not chosen again. A VM is given up; of a server outside the owner decides whether it can do without.
    pub(crate) fn doubt(&self, vm: &Vm, why: Suspicion) {
        match self.config().external() {
            None => self.suspect(vm, why),
            // Fails only when the owner is gone, and then so are its servers.
            Some(_) => drop(self.events.send(Event::Suspect(vm.id, why))),
        }
    }

    /// Whether no request may come in any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(SeqCst)
    }

    /// Requests that wait.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(SeqCst)
    }

    /// VMs that take requests, oldest first.
    pub(crate) fn ready_vms(&self) -> Arc<Ready> {
        self.ready.load_full()
    }

    /// The owner's: how many were not let wait since the last call.
    pub(crate) fn take_rejected(&self) -> usize {
        self.rejected.swap(0, SeqCst)
    }

    /// The owner's: these VMs take requests.
    pub(crate) fn set_ready(&self, ready: Vec<Arc<Vm>>) {
        self.ready.store(Arc::new(Ready::new(ready, &self.config())));
    }

    /// The owner's: how far requests from the queue may fill a VM.
    pub(crate) fn set_queued_limit(&self, limit: u32) {
        self.queued_limit.store(limit, SeqCst);
    }

    /// The owner's: whether it wants to know of demand above the soft limit.
    pub(crate) fn set_may_grow(&self, may_grow: bool) {
        self.may_grow.store(may_grow, SeqCst);
    }

    /// The owner's: no request comes in any more; those that wait still may be served.
    pub(crate) fn close(&self) {
        self.closed.store(true, SeqCst);
        self.queue.lock().close();
    }

    /// Within its timeout every place in a full queue becomes free, on average in half of it.
    pub(crate) fn queue_retry_after(&self) -> Duration {
        whole_seconds(self.config().queue.timeout / 2)
    }
}

/// Rounded up, at least one, as Retry-After wants it.
pub(crate) fn whole_seconds(duration: Duration) -> Duration {
    let up = u64::from(duration.subsec_nanos() > 0);
    Duration::from_secs(duration.as_secs().saturating_add(up).max(1))
}
