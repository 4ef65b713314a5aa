//! What a VM's process and weir say to each other over the VM's control socket.

use std::fmt;

use serde::{Deserialize, Serialize};

/// From a VM's process to weir.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum VmEvent {
    /// The application listens.
    Ready,
    /// A line that the guest logged.
    Log(String),
    /// The last message: why the VM ended.
    Exit(ExitReason),
}

/// From weir to a VM's process. End of file on the socket means [`VmCommand::Stop`] too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum VmCommand {
    /// End now.
    Stop,
}

/// Why a VM ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExitReason {
    /// weir asked for it.
    Stopped,
    /// The application ended with this code.
    Exited(i32),
    /// The application panicked.
    Panicked(String),
    /// The guest reported a CPU exception it did not expect.
    Faulted(String),
    /// The guest did what no working guest does.
    Crashed(CrashReason),
    /// The image or the spec cannot become a VM.
    Refused(String),
    /// The host could not run it (KVM missing, memory, a bug of ours).
    Host(String),
    /// The process ended without a last word (SIGKILL, seccomp, abort).
    Died(String),
}

/// How a guest broke its machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CrashReason {
    /// KVM_EXIT_SHUTDOWN: a fault that could not be delivered.
    TripleFault,
    /// A fault while another was being handled.
    DoubleFault,
    /// KVM_EXIT_INTERNAL_ERROR: an instruction that cannot be emulated.
    Emulation(String),
    /// It broke the rules of a virtqueue or of a device's registers.
    Virtio(String),
    /// An exit that this machine has no use for (port I/O, HLT, unknown address).
    UnexpectedExit(String),
}

impl ExitReason {
    /// Short stable word for the `reason` label of `weir_vm_exits_total`.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Exited(_) => "exited",
            Self::Panicked(_) => "panic",
            Self::Faulted(_) => "fault",
            Self::Crashed(CrashReason::TripleFault) => "triple_fault",
            Self::Crashed(CrashReason::DoubleFault) => "double_fault",
            Self::Crashed(CrashReason::Emulation(_)) => "emulation",
            Self::Crashed(CrashReason::Virtio(_)) => "virtio",
            Self::Crashed(CrashReason::UnexpectedExit(_)) => "unexpected_exit",
            Self::Refused(_) => "refused",
            Self::Host(_) => "host",
            Self::Died(_) => "died",
        }
    }
}

impl fmt::Display for ExitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stopped => f.write_str("stopped"),
            Self::Exited(code) => write!(f, "application exited with code {code}"),
            Self::Panicked(text) => write!(f, "application panicked: {text}"),
            Self::Faulted(text) => write!(f, "guest fault: {text}"),
            Self::Crashed(reason) => write!(f, "guest crashed: {reason}"),
            Self::Refused(text) => write!(f, "refused: {text}"),
            Self::Host(text) => write!(f, "host failure: {text}"),
            Self::Died(text) => write!(f, "vm process died: {text}"),
        }
    }
}

impl fmt::Display for CrashReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TripleFault => f.write_str("triple fault"),
            Self::DoubleFault => f.write_str("fault while handling a fault"),
            Self::Emulation(text) => write!(f, "instruction that cannot be emulated: {text}"),
            Self::Virtio(text) => write!(f, "virtio violation: {text}"),
            Self::UnexpectedExit(text) => write!(f, "unexpected exit: {text}"),
        }
    }
}
