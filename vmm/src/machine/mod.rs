//! One microVM: from a checked image to the reason why it ended.
//!
//! The guest runs in ring 3 of a machine that has no interrupt controller, no ports and no ring-0 code but two small
//! exception gates: it can reach the host only by loads and stores to the [control page](control) and the virtio
//! pages. Everything before the first instruction is pure where it can be ([`plan`], [`tables`], [`system`],
//! [`boot_info`]), put together in [`build`], and then [`run`] is the only loop.

mod boot_info;
mod build;
mod console;
mod control;
mod exit;
mod gates;
mod interrupt;
mod outbox;
mod plan;
mod refusals;
mod run;
mod system;
mod tables;
#[cfg(test)]
mod tests;
mod vcpu;

use std::fs::File;
use std::os::fd::OwnedFd;

use crate::event::ExitReason;
use crate::spec::VmSpec;

/// Runs one VM to its end on the calling thread.
///
/// `kvm` is an open /dev/kvm (see [`crate::kvm::open`]), `image` a memfd sealed against writing and shrinking, `tap` a
/// non-blocking TAP with a 12-byte virtio-net header, needed if `spec.net` is `Some`, and `control` the VM's end of a
/// seqpacket socket, which becomes non-blocking. Sends [`crate::VmEvent::Ready`] and [`crate::VmEvent::Log`], but not
/// the final [`crate::VmEvent::Exit`]: that is the caller's, on a duplicate of `control`, with
/// [`crate::event::send_within`].
///
/// Takes over SIGUSR1 of the process, and ends soon after a [`crate::VmCommand::Stop`] or end of file on `control`,
/// whatever the guest does.
pub fn run(kvm: OwnedFd, spec: &VmSpec, image: &File, tap: Option<OwnedFd>, control: OwnedFd) -> ExitReason {
    match build::build(kvm, spec, image, tap, control) {
        Ok(machine) => machine.run(),
        Err(error) => error.reason(),
    }
}
