//! The right to send one request to one VM.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::Instant;
use weir_vmm::VmId;

use crate::choice::Member;
use crate::health::{Fingerprint, Pass};
use crate::launcher::StartKind;
use crate::network::Network;
use crate::owner::Suspicion;
use crate::vm::Vm;

/// Held while a request is with a VM, its response's last byte included; a tunnelled stream (WebSocket) holds it as
/// long as it lives. While it is held the VM is neither stopped for being idle nor given to more than `hard_limit`
/// requests. Dropping it gives the place to the next request that waits; where the pool isolates requests or
/// connections and this was the last lease of its tenancy, after the VM has been reset.
#[derive(Debug)]
pub struct Lease {
    vm: Arc<Vm>,
    start: Start,
    queued: Duration,
    /// Its request was sent, and its answer has not begun.
    awaits: AtomicBool,
    /// When [`Self::timed`] was called, nanoseconds after the VM's READY; zero: it was not.
    timed_from: AtomicU64,
}

/// How the VM of a lease came to be, seen from the request.
/// The later, the longer it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Start {
    /// It was there already.
    Warm,
    /// The request waited for it to be cloned from a snapshot.
    Clone,
    /// The request waited for it to boot.
    Cold,
}

/// Why a request got no VM. Every `retry_after` is in whole seconds, at least one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LeaseError {
    /// What `queue.max_pending` and `queue.max_memory` allow waits already, and none of it has less right to.
    #[error("wait queue full")]
    QueueFull {
        /// When it is worth trying again.
        retry_after: Duration,
    },
    /// No VM has room, and `queue.overflow` is `"reject"`.
    #[error("no vm has room")]
    NoRoom {
        /// When it is worth trying again.
        retry_after: Duration,
    },
    /// No VM had room within `queue.timeout`.
    #[error("no vm had room in time")]
    TimedOut {
        /// When it is worth trying again.
        retry_after: Duration,
    },
    /// The pool has no VM, and those that it tried to start failed.
    #[error("vm start failed: {reason}")]
    StartFailed {
        /// What the last attempt died of.
        reason: String,
        /// When the pool will try again.
        retry_after: Duration,
    },
    /// Requests like this one have killed `quarantine.kills` VMs.
    #[error("such requests kill vms")]
    Quarantined {
        /// When it will be tried again.
        retry_after: Duration,
    },
    /// weir is going down.
    #[error("shutting down")]
    ShuttingDown,
}

impl Lease {
    /// A lease of a place in `vm`'s gate that the caller has entered.
    pub(crate) fn entered(vm: Arc<Vm>, start: Start, queued: Duration) -> Self {
        Self { vm, start, queued, awaits: AtomicBool::new(false), timed_from: AtomicU64::new(0) }
    }

    /// Where the VM's application listens.
    pub fn address(&self) -> SocketAddr {
        self.vm.address
    }

    /// The network that [`Self::address`] is in.
    pub fn network(&self) -> Arc<dyn Network> {
        Arc::clone(&self.vm.shared.network)
    }

    /// The VM, or the server outside as long as it is one of the pool's.
    pub fn vm(&self) -> VmId {
        self.vm.id
    }

    /// What a later request ranks, see [`crate::Pool::lease_ranked`], to come to the same VM.
    pub fn member(&self) -> Member {
        self.vm.member(self.vm.shared.config().external().is_some())
    }

    /// How many tenancies of the VM have been ended by a reset before this lease's, modulo 2^29; always 0 where the pool
    /// isolates neither requests nor connections. Two leases of one VM are of one tenancy if it is the same.
    pub fn generation(&self) -> u32 {
        self.vm.gate.generation()
    }

    /// Whether the request had to wait for the VM to come into being.
    pub fn start(&self) -> Start {
        self.start
    }

    /// How long the request waited for the lease.
    pub fn queued(&self) -> Duration {
        self.queued
    }

    /// Resolves when the VM is gone, or told to go although it is leased. A guest takes its TCP with it and says
    /// nothing on its connections: who waits for it to answer must wait for this as well. Outlives the lease.
    pub fn gone(&self) -> impl Future<Output = ()> + Send + use<> {
        self.vm.gone()
    }

    /// Has `hook` called whenever a tenancy of the VM has ended, before the VM is reset: for taking down what belongs to
    /// the tenancy. Of several hooks of one VM the first stays. Not called where the VM is not reset but goes.
    pub fn before_reset(&self, hook: impl Fn() + Send + Sync + 'static) {
        self.vm.set_before_reset(Box::new(hook));
    }

    /// The VM, for who keeps its tenancy.
    pub(crate) fn tenant_of(&self) -> &Arc<Vm> {
        &self.vm
    }

    /// The request is being sent. If its answer does not begin soon, and no other request's does either, the VM is asked
    /// whether it works, see [`crate::Lease::gone`] for what follows if it does not.
    pub fn asked(&self) {
        if !self.awaits.swap(true, Relaxed) {
            self.vm.signs.asked();
        }
    }

    /// The request is being sent, and is so small that how long its answer takes to begin is the VM's doing and not the
    /// client's: a VM that is clearly slower than others is given fewer requests.
    pub fn timed(&self) {
        self.timed_from.store(self.since_ready().max(1), Relaxed);
    }

    /// The answer has begun.
    pub fn answered(&self) {
        if let from @ 1.. = self.timed_from.swap(0, Relaxed) {
            self.vm.latency.observe(Duration::from_nanos(self.since_ready().saturating_sub(from)));
        }
        self.vm.signs.heard();
        self.waits_no_more();
    }

    /// Reports that the answer did not begin, or did not go on, within its time. When that was so for
    /// `health.unhealthy_after` requests in a row, this is [`Self::suspect`]; for a server outside only if there are
    /// others.
    pub fn unanswered(&self) {
        if self.vm.signs.unanswered() >= self.vm.shared.config().health.unhealthy_after {
            self.vm.shared.doubt(&self.vm, Suspicion::Unanswered);
        }
    }

    /// Reports that a connection on which the request was the first broke before the whole answer was there. For a VM this
    /// is [`Self::suspect`]; for a server outside, which is not replaced, [`Self::unanswered`].
    pub fn broke(&self) {
        match self.vm.shared.config().external() {
            None => self.suspect(),
            Some(_) => self.unanswered(),
        }
    }

    /// Reports that the VM refused the connection. From now on it gets no request; when the last lease of it has ended it
    /// is stopped, and demand brings another in its place. A server outside gets requests again once it passes a check.
    pub fn suspect(&self) {
        self.vm.shared.suspect(&self.vm, Suspicion::Refused);
    }

    /// Reports that the connection broke while the request, which has this fingerprint and was given `pass`, was with the
    /// VM. If that ends unasked now, or has already, it is among the suspects.
    pub fn lost(&self, fingerprint: Fingerprint, pass: &Pass) {
        self.vm.inquest.lost(fingerprint, pass, Instant::now());
    }

    /// Nanoseconds.
    fn since_ready(&self) -> u64 {
        let since = Instant::now().saturating_duration_since(self.vm.ready_at);
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }

    fn waits_no_more(&self) {
        // Reading is cheaper, and answers it for whoever never asked.
        if self.awaits.load(Relaxed) && self.awaits.swap(false, Relaxed) {
            self.vm.signs.waits_no_more();
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.waits_no_more();
        self.vm.shared.leave(&self.vm, Instant::now());
    }
}

impl Start {
    /// Word for logs.
    pub fn label(self) -> &'static str {
        match self {
            Self::Warm => "warm",
            Self::Clone => "clone",
            Self::Cold => "cold",
        }
    }
}

impl From<StartKind> for Start {
    fn from(kind: StartKind) -> Self {
        match kind {
            StartKind::Cold => Self::Cold,
            StartKind::Clone | StartKind::Prefork => Self::Clone,
        }
    }
}

impl LeaseError {
    /// Stable word for the `reason` label of `weir_requests_shed_total`.
    pub fn label(&self) -> &'static str {
        match self {
            Self::QueueFull { .. } => "queue_full",
            Self::NoRoom { .. } => "no_room",
            Self::TimedOut { .. } => "queue_timeout",
            Self::StartFailed { .. } => "start_failed",
            Self::Quarantined { .. } => "quarantined",
            Self::ShuttingDown => "shutting_down",
        }
    }
}
