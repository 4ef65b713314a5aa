//! What those hear who asked for a pool's VMs to be replaced.

use tokio::sync::oneshot;

use super::Outcome;
use crate::launcher::Revision;

/// A restart that was carried through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replaced {
    /// What VMs are started from now.
    pub revision: Revision,
    /// Whether it has another image than the one before.
    pub image_changed: bool,
    /// VMs that were taken out.
    pub vms: u32,
}

/// Why a pool's VMs were not replaced.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RestartError {
    /// Another one is under way.
    #[error("a restart is under way")]
    InProgress,
    /// Nothing was replaced, for there was nothing to replace it by.
    #[error("new revision failed, nothing was replaced: {reason}")]
    Failed {
        /// What failed, with its causes.
        reason: String,
    },
    /// VMs of the new revision failed; those of the one before are back.
    #[error("new vms failed, rolled back: {reason}")]
    RolledBack {
        /// What the one that decided it died of.
        reason: String,
    },
    /// weir is going down.
    #[error("shutting down")]
    ShuttingDown,
}

/// A restart that has begun; it goes on when this is dropped.
#[derive(Debug)]
pub struct Restarting(pub(crate) oneshot::Receiver<Outcome>);

/// VMs that were told to take no more requests; they go on doing so when this is dropped.
#[derive(Debug)]
pub struct Draining {
    /// How many.
    pub vms: u32,
    pub(crate) gone: oneshot::Receiver<()>,
}

impl Restarting {
    /// Waits for its end.
    ///
    /// # Errors
    /// If nothing was replaced, or what was came back.
    pub async fn done(self) -> Outcome {
        self.0.await.unwrap_or(Err(RestartError::ShuttingDown))
    }
}

impl Draining {
    /// Waits until all of them are gone.
    pub async fn done(self) {
        // An error means that the pool's owner is gone, and it goes last.
        let _ = self.gone.await;
    }
}
