//! Messages between weir and the launcher: one postcard-encoded value per seqpacket datagram.

use serde::{Deserialize, Serialize};

use crate::spec::{VmId, VmSpec};

pub use crate::channel::MESSAGE_MAX;

/// From weir to the launcher.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LauncherRequest {
    /// Start a VM. File descriptors with it, in this order: image (sealed memfd), the VM's end of its control
    /// socket, and the TAP if `spec.net` is `Some`.
    Start(Box<VmSpec>),
}

/// From the launcher to weir.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LauncherReply {
    /// The process exists; its pidfd comes with this message. `pid` is as the launcher's pid namespace sees it.
    Started {
        /// Which VM.
        id: VmId,
        /// Its process.
        pid: i32,
    },
    /// The process could not be made; nothing is left of it.
    Failed {
        /// Which VM.
        id: VmId,
        /// Why.
        error: String,
    },
    /// The process is gone and reaped. Its `ExitReason`, if it had a last word, came over its control socket.
    Exited {
        /// Which VM.
        id: VmId,
        /// "exit code 0", "signal 9 (SIGKILL)", …
        status: String,
    },
}
