//! One microVM: from a checked image to the reason why it ended.
//!
//! The guest runs in ring 3 of a machine that has no interrupt controller, no ports and no ring-0 code but two small
//! exception gates: it can reach the host only by loads and stores to the [control page](control) and the virtio
//! pages. Everything before the first instruction is pure where it can be ([`plan`], [`tables`], [`system`],
//! [`boot_info`]), put together in [`boot`] or, for a clone, in [`thaw`], and then [`run`] is the only loop,
//! with what the guest asks for by an [`access`], and its [`park`].

mod access;
mod activity;
mod blank;
mod boot;
mod boot_info;
mod console;
mod control;
mod error;
mod exit;
mod freeze;
mod gates;
mod interrupt;
mod network;
mod outbox;
mod park;
mod plan;
mod refusals;
mod run;
mod state;
mod system;
mod tables;
#[cfg(test)]
mod tests;
mod thaw;
mod vcpu;

use std::fs::File;
use std::os::fd::OwnedFd;

use crate::event::ExitReason;
use crate::jail::JailError;
use crate::spec::VmSpec;
use blank::Blank;
pub use state::FORMAT as STATE_FORMAT;
pub use weir_abi::ABI_VERSION;

/// Takes from the process what a guest with so many bytes of memory does not need; see [`crate::jail::limits`].
pub type Limit = fn(u64) -> Result<(), JailError>;

/// Makes a VM on `kvm`, an open /dev/kvm (see [`crate::kvm::open`]), waits on `control`, the VM's end of a seqpacket
/// socket, for what it is to become ([`crate::VmCommand::Boot`] or [`crate::VmCommand::Clone`]), and runs that to its
/// end on the calling thread.
///
/// Sends every [`crate::VmEvent`] but the final [`crate::VmEvent::Exit`]: that is the caller's, on a duplicate of `control`, with [`crate::event::send_within`].
///
/// Takes over SIGUSR1 of the process, and ends soon after a [`crate::VmCommand::Stop`] or end of file on `control`,
/// whatever the guest does.
///
/// `limit` is called with the guest's memory, in bytes, as soon as that is known.
pub fn serve(kvm: OwnedFd, control: OwnedFd, limit: Limit) -> ExitReason {
    match Blank::prepare(kvm) {
        Ok(blank) => blank.serve(control, limit),
        Err(error) => error.reason(),
    }
}

/// [`serve`] for a VM that is known from the start and boots `image`, a memfd sealed against writing and shrinking.
/// `tap` is a non-blocking TAP with a 12-byte virtio-net header, needed if `spec.net` is `Some`.
pub fn run(kvm: OwnedFd, spec: &VmSpec, image: File, tap: Option<OwnedFd>, control: OwnedFd) -> ExitReason {
    let files = boot::Files { image, tap, memory: None };
    match Blank::prepare(kvm).and_then(|blank| boot::boot(blank, spec, files, control)) {
        Ok(machine) => machine.run(),
        Err(error) => error.reason(),
    }
}
