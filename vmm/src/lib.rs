//! weir's VMM: one microVM in one jailed process.
#![deny(unsafe_code)]

pub mod channel;
pub mod doctor;
pub mod event;
pub mod jail;
pub mod launcher;
pub mod spec;

pub use event::{CrashReason, ExitReason, VmCommand, VmEvent};
pub use spec::{NetSpec, VmId, VmSpec};
