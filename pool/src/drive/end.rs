//! How a VM's task ended, and the words for it.

use std::time::Duration;

use weir_vmm::ExitReason;

use super::RESET_TIMEOUT;
use crate::launcher::StartError;

/// How a VM ended.
#[derive(Debug)]
pub(crate) enum End {
    /// There was no process.
    NotStarted(StartError),
    /// It was killed because it was not READY in time.
    NotReady(Duration),
    /// It was killed because it did not go back to its snapshot in time.
    NotReset,
    /// The process ended.
    Exited(ExitReason),
}

impl End {
    /// Short stable word for the `reason` label of `weir_vm_exits_total`.
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Self::NotStarted(_) => "start_failed",
            Self::NotReady(_) => "start_timeout",
            Self::NotReset => "reset_timeout",
            Self::Exited(reason) => reason.label(),
        }
    }

    /// For logs and for the requests that waited: the whole chain of causes.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::NotStarted(error) => {
                let first: &dyn std::error::Error = error;
                let causes: Vec<_> = std::iter::successors(Some(first), |error| error.source())
                    .map(ToString::to_string)
                    .collect();
                causes.join(": ")
            }
            Self::NotReady(limit) => format!("not ready within {limit:?}"),
            Self::NotReset => format!("not reset within {RESET_TIMEOUT:?}"),
            Self::Exited(reason) => reason.to_string(),
        }
    }
}
