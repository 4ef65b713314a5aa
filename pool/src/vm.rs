//! A VM as requests see it: from READY on. A server outside is the same to them.

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, timeout};
use weir_vmm::VmId;

use crate::choice::Latency;
use crate::gate::{Gate, Left};
use crate::health::{Inquest, Signs};
use crate::idle::PATIENCE;
use crate::lease::Start;
use crate::owner::Event;
use crate::shared::Shared;
use crate::signal;

/// One VM that has been READY. What every request touches comes first, behind an [`Arc`]'s count, so that it is in one or
/// two cache lines: those of a large pool do not stay in a cache.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Vm {
    pub(crate) gate: Gate,
    /// When a request last left, nanoseconds after `ready_at`.
    last_left: AtomicU64,
    pub(crate) ready_at: Instant,
    /// Its share of new requests, thousandths of the usual.
    pub(crate) weight: AtomicU32,
    pub(crate) latency: Latency,
    /// Its index in the list of ready VMs; a hint, while that changes.
    pub(crate) position: AtomicU32,
    /// What those find who waited for it.
    pub(crate) start: Start,
    pub(crate) id: VmId,
    /// Its pool's. Leases find it here, so that they do not all count themselves in one place; that the pool knows its VMs
    /// too ends with the pool's owner.
    pub(crate) shared: Arc<Shared>,
    pub(crate) address: SocketAddr,
    gone: watch::Sender<bool>,
    /// To its task.
    orders: mpsc::UnboundedSender<Order>,
    before_reset: OnceLock<Hook>,
    pub(crate) signs: Signs,
    pub(crate) inquest: Inquest,
}

/// What a VM's task is to have its process do.
#[derive(Debug)]
pub(crate) enum Order {
    /// To go back to its snapshot: the VM is dirty.
    Reset(Arc<Vm>),
    /// To say for how long its guest has done nothing of its own accord.
    Report(oneshot::Sender<Duration>),
    /// To end by force.
    Kill,
}

/// What is done between the end of a tenancy and the reset.
pub(crate) struct Hook(Box<dyn Fn() + Send + Sync>);

impl fmt::Debug for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hook")
    }
}

impl Vm {
    /// One that has just become READY; its task takes its orders from `orders`' other end.
    pub(crate) fn new(
        id: VmId,
        address: SocketAddr,
        start: Start,
        ready_at: Instant,
        orders: mpsc::UnboundedSender<Order>,
        shared: Arc<Shared>,
    ) -> Self {
        Self {
            shared,
            id,
            address,
            gate: Gate::default(),
            start,
            ready_at,
            weight: AtomicU32::new(signal::NORMAL),
            latency: Latency::default(),
            position: AtomicU32::new(0),
            last_left: AtomicU64::new(0),
            gone: watch::Sender::new(false),
            orders,
            before_reset: OnceLock::new(),
            signs: Signs::default(),
            inquest: Inquest::default(),
        }
    }

    /// A server outside that has just become one of the pool's: it is out of service, and has nobody who would take orders.
    pub(crate) fn server(id: VmId, address: SocketAddr, now: Instant, shared: Arc<Shared>) -> Self {
        let server = Self::new(id, address, Start::Warm, now, mpsc::unbounded_channel().0, shared);
        server.gate.close();
        server
    }

    /// One that nobody drives.
    #[cfg(test)]
    pub(crate) fn undriven(id: VmId, ready_at: Instant) -> Self {
        let (address, orders) = (([127, 0, 0, 1], 1).into(), mpsc::unbounded_channel().0);
        Self::new(id, address, Start::Cold, ready_at, orders, Shared::unowned().0)
    }

    /// Its process is gone, or told to go whatever requests it has.
    pub(crate) fn set_gone(&self) {
        self.gate.close();
        self.gone.send_replace(true);
    }

    /// Resolves when [`Self::set_gone`] has been called.
    pub(crate) fn gone(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut gone = self.gone.subscribe();
        // An error means that nobody is left to call it.
        async move { drop(gone.wait_for(|gone| *gone).await) }
    }

    /// Leaves the gate at `now`.
    pub(crate) fn leave(&self, now: Instant) -> Left {
        let nanos = now.saturating_duration_since(self.ready_at).as_nanos();
        // Before the count goes down: who then sees an empty gate also sees since when.
        self.last_left.fetch_max(u64::try_from(nanos).unwrap_or(u64::MAX), Relaxed);
        self.gate.leave()
    }

    /// See [`crate::Lease::before_reset`].
    pub(crate) fn set_before_reset(&self, hook: Box<dyn Fn() + Send + Sync>) {
        // Whoever came first has said all that is to be done.
        let _ = self.before_reset.set(Hook(hook));
    }

    /// Its gate has become dirty: has it reset.
    pub(crate) fn reset(self: &Arc<Self>) {
        if let Some(Hook(hook)) = self.before_reset.get() {
            hook();
        }
        // Fails only when its task has ended, and then so has the VM.
        drop(self.orders.send(Order::Reset(Arc::clone(self))));
    }

    /// Asks its process for how long its guest has done nothing of its own accord, which it answers whatever its guest is
    /// at. `None`: its task has ended, and so the VM. Pending as long as the process says nothing.
    pub(crate) fn ask(&self) -> impl Future<Output = Option<Duration>> + Send + use<> {
        let (answer, answered) = oneshot::channel();
        drop(self.orders.send(Order::Report(answer)));
        async move { answered.await.ok() }
    }

    /// Ends its process by force.
    pub(crate) fn kill(&self) {
        drop(self.orders.send(Order::Kill));
    }

    /// Whether [`Self::set_gone`] has been called.
    pub(crate) fn is_gone(&self) -> bool {
        *self.gone.borrow()
    }

    /// Has its owner told the answer to [`Self::ask`], or that there is none within [`PATIENCE`]. That a VM has ended it is
    /// told in any case.
    pub(crate) fn ask_for_owner(&self) {
        let (id, answer, events) = (self.id, timeout(PATIENCE, self.ask()), self.shared.events.clone());
        tokio::spawn(async move {
            let quiet = answer.await;
            if quiet != Ok(None) {
                // An owner that is gone has no interest.
                drop(events.send(Event::Report { id, quiet: quiet.ok().flatten() }));
            }
        });
    }

    /// Since when it has been without a request, given that it is without one now.
    pub(crate) fn idle_since(&self) -> Instant {
        self.ready_at + Duration::from_nanos(self.last_left.load(Relaxed))
    }
}
