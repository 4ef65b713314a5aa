//! weir's VMM: one microVM in one jailed process.
#![deny(unsafe_code)]

pub mod channel;
pub mod event;
pub mod launcher;
pub mod spec;
pub mod virtio;

pub use event::{CrashReason, ExitReason, VmCommand, VmEvent};
pub use spec::{NetSpec, VmId, VmSpec};
