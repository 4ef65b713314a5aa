//! weir's VMM: one microVM in one jailed process.
#![deny(unsafe_code)]

pub mod cgroup;
pub mod channel;
pub mod doctor;
pub mod event;
pub mod image;
pub mod jail;
pub mod kvm;
pub mod launcher;
pub mod machine;
pub mod memory;
pub mod order;
pub mod spec;
mod sys;
pub mod virtio;

pub use event::{CrashReason, ExitReason, VmCommand, VmEvent};
pub use order::{BootOrder, CloneOrder, PageRun, Sharing};
pub use spec::{NetLimits, NetSpec, Rate, VmId, VmSpec};

/// An error with its causes: "open /dev/kvm: No such file or directory".
pub(crate) fn message(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
