//! One pool as its users see it.

use std::sync::Arc;

use tokio::sync::{oneshot, watch};
use tokio::time::Instant;
use weir_config::model::Isolation;

use crate::choice::Member;
use crate::health::{Fingerprint, Pass};
use crate::lease::{Lease, LeaseError};
use crate::owner::Event;
use crate::queue::Caller;
use crate::rollout::{Draining, RestartError, Restarting};
use crate::shared::{Shared, whole_seconds};
use crate::status::PoolStatus;
use crate::tenancy::Tenancy;

/// A pool of interchangeable VMs.
#[derive(Debug)]
pub struct Pool {
    pub(crate) shared: Arc<Shared>,
}

/// How many VMs a pool has, by where they are in their lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Instances {
    /// Not READY yet.
    pub starting: u32,
    /// Take requests.
    pub ready: u32,
    /// Take no new requests, still have some.
    pub draining: u32,
    /// Are being ended.
    pub stopping: u32,
}

impl Pool {
    /// The right to send one request to one VM. Starts a VM if there is none, and waits for it or for room in
    /// another one, at most `queue.timeout`; those that wait are served by turns, see [`Caller`].
    ///
    /// Where the pool isolates requests or connections the lease is a tenancy of its own: nobody else gets the VM before
    /// it has been reset.
    ///
    /// Dropping the future leaves the queue at once.
    ///
    /// # Errors
    /// If the queue is full, the wait too long, VMs cannot be started, or weir is going down.
    pub async fn lease_for(&self, caller: &Caller) -> Result<Lease, LeaseError> {
        self.shared.lease(caller, Instant::now).await
    }

    /// As [`Self::lease_for`], of the VM with the highest `rank` among those that have one and room. If there is none of
    /// those, or others wait, it is any VM.
    ///
    /// # Errors
    /// As [`Self::lease_for`].
    pub async fn lease_ranked(
        &self,
        caller: &Caller,
        rank: impl Fn(Member) -> Option<u64>,
    ) -> Result<Lease, LeaseError> {
        match self.shared.lease_ranked(rank) {
            Some(lease) => Ok(lease),
            None => self.lease_for(caller).await,
        }
    }

    /// Leave for a request to be sent to one of the VMs, for which it needs a lease as well. `fingerprint` is only asked for
    /// while the pool has reason to tell requests apart.
    ///
    /// # Errors
    /// [`LeaseError::Quarantined`].
    pub fn admit(&self, fingerprint: impl FnOnce() -> Fingerprint) -> Result<Pass, LeaseError> {
        self.shared.quarantine.admit(fingerprint, Instant::now()).map_err(|left| {
            let error = LeaseError::Quarantined { retry_after: whole_seconds(left) };
            self.shared.metrics.shed(error.label());
            error
        })
    }

    /// The request that `pass` was given to has been answered, whole.
    pub fn acquit(&self, pass: &Pass) {
        self.shared.quarantine.acquit(pass);
    }

    /// A stay of a client's connection in this pool. It takes a VM with its first lease.
    pub fn tenancy(&self) -> Tenancy {
        Tenancy::new(Arc::clone(&self.shared))
    }

    /// Begins to replace all VMs by new ones, without failing a request: the image is read again, a template made of it
    /// and proven by a canary; then new VMs start, and the earlier ones go as soon as there are READY ones in their place.
    ///
    /// # Errors
    /// If a restart is under way, or weir is going down.
    pub async fn restart(&self) -> Result<Restarting, RestartError> {
        let (reply, begun) = oneshot::channel();
        drop(self.shared.events.send(Event::Restart { reply }));
        begun.await.unwrap_or(Err(RestartError::ShuttingDown))
    }

    /// Takes all VMs that there are now out of use: they get no new requests, and end when they have none left. Requests
    /// that come meanwhile wait for new VMs. `None`: the pool is gone.
    pub async fn drain(&self) -> Option<Draining> {
        let (reply, begun) = oneshot::channel();
        drop(self.shared.events.send(Event::Drain { reply }));
        begun.await.ok()
    }

    /// The pool and its VMs as they are now. `None`: the pool is gone.
    pub async fn status(&self) -> Option<PoolStatus> {
        let (reply, status) = oneshot::channel();
        drop(self.shared.events.send(Event::Status { reply }));
        status.await.ok()
    }

    /// The pool's configuration as it is now.
    pub fn config(&self) -> Arc<weir_config::model::Pool> {
        self.shared.config()
    }

    /// When its VMs go back to their clean snapshot.
    pub fn isolation(&self) -> Isolation {
        self.shared.isolation
    }

    /// Its VMs, now and whenever their number changes.
    pub fn instances(&self) -> watch::Receiver<Instances> {
        self.shared.instances.subscribe()
    }

    /// Requests that wait for a lease.
    pub fn queued(&self) -> usize {
        self.shared.waiting()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.released.notify_one();
    }
}

impl Instances {
    /// All processes that are not gone.
    pub fn total(&self) -> u32 {
        self.starting + self.ready + self.draining + self.stopping
    }
}
