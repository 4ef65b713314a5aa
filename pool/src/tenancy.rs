//! One client connection's stay in a pool that isolates connections.
//!
//! ```text
//!  vacant --lease--> seated in a VM --lease, lease, ...--> ended (dropped) --last lease ends--> the VM is reset
//!    ^                    |
//!    +--------------------+  the VM went, drains or failed; or, while no lease was held: others waited and the pool
//!                            could start no VM, or `scale.idle_timeout` passed
//! ```
//!
//! A connection that is kept open must not keep a VM from others for ever, so a tenancy without a request in flight can
//! lose its VM, see [`crate::scale::revocations`]. Its next request then finds a clean one, as if the connection were
//! new.

use std::sync::Arc;

use tokio::sync::Mutex;
use tokio::time::{Instant, timeout_at};
use weir_config::model::Isolation;

use crate::lease::{Lease, LeaseError, Start};
use crate::queue::Caller;
use crate::shared::Shared;
use crate::vm::Vm;

/// See the module's documentation. In a pool that does not isolate connections each lease is on its own.
#[derive(Debug)]
pub struct Tenancy {
    shared: Arc<Shared>,
    /// Locked while a seat is waited for: requests that come meanwhile wait for the same one.
    seat: Mutex<Option<Seat>>,
}

/// Where a tenancy is, if the VM's gate agrees.
#[derive(Debug)]
struct Seat {
    vm: Arc<Vm>,
    generation: u32,
}

impl Tenancy {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, seat: Mutex::new(None) }
    }

    /// The right to send one request to the tenancy's VM. Any number may be held at a time. Without a VM it waits for one
    /// as [`crate::Pool::lease_for`] does.
    ///
    /// # Errors
    /// As [`crate::Pool::lease_for`].
    pub async fn lease_for(&self, caller: &Caller) -> Result<Lease, LeaseError> {
        let now = Instant::now();
        if self.shared.isolation != Isolation::Connection {
            return self.shared.lease(caller, || now).await;
        }
        let deadline = now + self.shared.config().queue.timeout;
        let Ok(mut seat) = timeout_at(deadline, self.seat.lock()).await else {
            let late = LeaseError::TimedOut { retry_after: self.shared.queue_retry_after() };
            self.shared.metrics.shed(late.label());
            return Err(late);
        };
        if let Some(Seat { vm, generation }) = &*seat
            && !self.shared.is_closed()
            && vm.gate.enter_held(*generation)
        {
            let queued = Instant::now().saturating_duration_since(now);
            let start = if vm.ready_at > now { vm.start } else { Start::Warm };
            return Ok(Lease::entered(vm.clone(), start, queued));
        }
        let lease = self.shared.lease(caller, || now).await?;
        let vm = lease.tenant_of();
        let held = vm.gate.keep().then(|| Seat { vm: vm.clone(), generation: lease.generation() });
        *seat = held;
        Ok(lease)
    }
}

impl Drop for Tenancy {
    fn drop(&mut self) {
        if let Some(Seat { vm, generation }) = self.seat.get_mut().take() {
            self.shared.end_tenancy(&vm, generation);
        }
    }
}
