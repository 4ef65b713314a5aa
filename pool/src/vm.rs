//! A VM as requests see it: from READY on.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::Instant;
use weir_vmm::VmId;

use crate::gate::Gate;

/// One VM that has been READY.
#[derive(Debug)]
pub(crate) struct Vm {
    pub(crate) id: VmId,
    pub(crate) address: SocketAddr,
    pub(crate) gate: Gate,
    pub(crate) ready_at: Instant,
    /// When a request last left, nanoseconds after `ready_at`.
    last_left: AtomicU64,
}

impl Vm {
    pub(crate) fn new(id: VmId, address: SocketAddr, ready_at: Instant) -> Self {
        Self { id, address, gate: Gate::default(), ready_at, last_left: AtomicU64::new(0) }
    }

    /// Leaves the gate at `now`; whether it is now closed and empty.
    pub(crate) fn leave(&self, now: Instant) -> bool {
        let nanos = now.saturating_duration_since(self.ready_at).as_nanos();
        // Before the count goes down: who then sees an empty gate also sees since when.
        self.last_left.fetch_max(u64::try_from(nanos).unwrap_or(u64::MAX), Relaxed);
        self.gate.leave()
    }

    /// Since when it has been without a request, given that it is without one now.
    pub(crate) fn idle_since(&self) -> Instant {
        self.ready_at + Duration::from_nanos(self.last_left.load(Relaxed))
    }
}
