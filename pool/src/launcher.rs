//! The seam between a pool's logic and what really starts VMs.
//!
//! The logic is tested against the scripted `fake`; the real thing talks to the launcher process.

use std::net::SocketAddr;
use std::sync::Arc;

use futures::future::{BoxFuture, FutureExt};
use weir_vmm::{VmEvent, VmId};

use crate::health::{Unhealthy, check};
use crate::network::OwnNetwork;

/// Which of the things that a pool's VMs have been made from one after the other: an image and, where there is one, its
/// template. Counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Revision(pub u64);

impl Revision {
    /// What weir was started with.
    pub const FIRST: Self = Self(1);
}

/// What to start.
#[derive(Clone, Debug)]
pub struct StartOrder {
    /// The new VM's identity.
    pub id: VmId,
    /// The pool it is for: image, memory, environment, port.
    pub pool: Arc<weir_config::model::Pool>,
    /// What it is to be made from; one that the launcher has.
    pub revision: Revision,
}

/// Why no VM came into being.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A part of the VM could not be had: its network link, its image, a descriptor.
    #[error("{what}")]
    Prepare {
        /// Which part, and what was tried.
        what: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The launcher could not make the process.
    #[error("launcher: {0}")]
    Refused(String),
    /// The launcher went away before it answered.
    #[error("launcher died")]
    LauncherDied,
}

/// A revision that VMs can be started from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prepared {
    /// Its image is another one than that of the revision in use.
    pub image_changed: bool,
}

/// Why there is no new revision.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// The image cannot be read, or is none. Names it.
    #[error("image {0}")]
    Image(String),
    /// Something of this host could not be had.
    #[error("{what}")]
    Host {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A VM of it did not come up, or is not healthy.
    #[error("prove the new revision")]
    Unproven(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Starts VMs, and asks them how they are.
pub trait Launcher: Send + Sync {
    /// Starts the VM's process; it need not be READY when this resolves. Dropping the future gives the VM up:
    /// what has come into being of it is killed.
    fn start(&self, order: StartOrder) -> BoxFuture<'static, Result<Box<dyn VmProcess>, StartError>>;

    /// Gets ready for VMs of `pool`, whose name no other has: its image is read.
    fn add(&self, pool: Arc<weir_config::model::Pool>) -> BoxFuture<'static, Result<(), PrepareError>>;

    /// Forgets the pool of this name, which has no VM any more.
    fn remove(&self, pool: &str);

    /// Makes `revision` beside the one in use, of VMs that are made from what `pool` says: its image is read anew, and a VM
    /// of it has to show that it works. Not while there are two already.
    fn prepare(
        &self,
        pool: Arc<weir_config::model::Pool>,
        revision: Revision,
    ) -> BoxFuture<'static, Result<Prepared, PrepareError>>;

    /// From now on no VM of the pool is started from another revision than this.
    fn settle(&self, pool: &str, revision: Revision);

    /// Whether VMs of the pool start as clones of a template now.
    fn has_template(&self, pool: &str) -> bool;

    /// Asks the application of `vm`, a VM of `pool` at `address`, whether it works: within `health.timeout`.
    fn check(
        &self,
        _vm: VmId,
        address: SocketAddr,
        pool: Arc<weir_config::model::Pool>,
    ) -> BoxFuture<'static, Result<(), Unhealthy>> {
        async move { check(&OwnNetwork, address, &pool.health).await }.boxed()
    }
}

/// What a VM was made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartKind {
    /// Its image, booted.
    Cold,
    /// Its pool's snapshot.
    Clone,
    /// Its pool's snapshot, in a process that was ready beforehand.
    Prefork,
}

impl StartKind {
    /// Value of the `kind` label of `weir_vm_start_duration_seconds`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Cold => "cold",
            Self::Clone => "clone",
            Self::Prefork => "prefork",
        }
    }
}

/// A VM's process. Dropping it kills it.
pub trait VmProcess: Send {
    /// Where its application will listen.
    fn address(&self) -> SocketAddr;

    /// What it was made from.
    fn kind(&self) -> StartKind;

    /// The next thing that the VM says. The last one is [`VmEvent::Exit`], after which the process is gone; after
    /// that it is not called again. Cancel-safe.
    fn next_event(&mut self) -> BoxFuture<'_, VmEvent>;

    /// Asks it to go back to its clean snapshot. The next [`VmEvent::Ready`] says that it has: a VM's process says
    /// READY once for its start and once for each reset, whatever its guest does. A process that cannot go back ends.
    fn reset(&self);

    /// Asks it whether its guest does anything; the answer is a [`VmEvent::Report`], or none.
    fn report(&self);

    /// Asks it to end.
    fn stop(&self);

    /// Ends it whether it agrees or not.
    fn kill(&self);
}
