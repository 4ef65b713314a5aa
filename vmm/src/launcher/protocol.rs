//! Messages between weir and the launcher: one postcard-encoded value per seqpacket datagram.
//!
//! The launcher never learns what its children become: that, and every secret in it, goes from weir straight to the
//! child, over the control socket whose ends the two have.

use std::fmt;

use serde::{Deserialize, Serialize};

pub use crate::channel::MESSAGE_MAX;

/// Names a child, before it is known what VM it becomes. Never used twice with one launcher.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ChildId(pub u64);

impl fmt::Display for ChildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// From weir to the launcher.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LauncherRequest {
    /// Make a jailed child. With it comes its end of its control socket.
    Fork(ChildId),
}

/// From the launcher to weir.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LauncherReply {
    /// The process exists; its pidfd comes with this message. `pid` is as the launcher's pid namespace sees it.
    Forked {
        /// Which child.
        child: ChildId,
        /// Its process.
        pid: i32,
    },
    /// The process could not be made; nothing is left of it.
    Failed {
        /// Which child.
        child: ChildId,
        /// Why.
        error: String,
    },
    /// The process is gone and reaped. Its `ExitReason`, if it had a last word, came over its control socket.
    Exited {
        /// Which child.
        child: ChildId,
        /// "exit code 0", "signal 9 (SIGKILL)", …
        status: String,
    },
}
