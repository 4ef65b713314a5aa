//! Resource limits: what even the allowed system calls may not take.
//!
//! A process is jailed before it is known which VM it gets, so its address space is limited twice: in the jail to what
//! the largest VM needs, and by [`set_memory`] to what its own needs, before the guest runs. Where there are no cgroups
//! this is all that keeps a process that was taken over from taking the host's memory. The process limits itself,
//! because weir cannot: to limit that of another user takes CAP_SYS_RESOURCE, which containers seldom have.

use rustix::process::{Resource, Rlimit, setrlimit};
use weir_abi::layout;

use super::{Identity, JailError, layer};

/// Highest file descriptor that can still be opened, plus one: standard streams, KVM, VM, vCPU, TAP, control
/// socket, image and a few eventfds.
const FILES: u64 = 32;
/// Tasks of a VM's user. A VM has two: the process, and the kernel thread that KVM starts on its behalf at the first
/// KVM_RUN (kvm-nx-lpage-recovery). If that cannot be made, KVM_RUN fails with EAGAIN for ever, so there is room for
/// some VMs of other launchers that chose the same users.
const TASKS: u64 = 16;

/// Address space of a VM's process besides guest memory, bytes. Measured: 17 MiB, and 24 when built for debugging,
/// nearly all of it the program itself and its libraries.
pub const ADDRESS_SPACE_OVERHEAD: u64 = 64 << 20;

/// Limits this process's address space, for good, to what a guest of `guest_memory` bytes needs. What is mapped
/// already stays, and counts; memory that is mapped twice at a time counts twice.
///
/// # Errors
/// More than it was limited to before.
pub fn set_memory(guest_memory: u64) -> Result<(), JailError> {
    set(Resource::As, address_space(guest_memory))
}

fn address_space(guest_memory: u64) -> u64 {
    guest_memory.saturating_add(ADDRESS_SPACE_OVERHEAD)
}

/// Sets the limits, soft and hard. Guest memory is mapped whole, up to the MMIO window, and filled page by page.
pub(super) fn apply(identity: Identity) -> Result<(), JailError> {
    let limits = [
        (Resource::Nofile, FILES),
        (Resource::As, address_space(layout::CONTROL)),
        (Resource::Fsize, 0),
        (Resource::Core, 0),
        (Resource::Memlock, 0),
        (Resource::Msgqueue, 0),
    ];
    for (resource, limit) in limits {
        set(resource, limit)?;
    }
    match identity {
        Identity::Unique(_) => set(Resource::Nproc, TASKS),
        // Counted per user, and this user has weir and all VMs: here only seccomp keeps a VM from forking.
        Identity::Launcher => Ok(()),
    }
}

fn set(resource: Resource, limit: u64) -> Result<(), JailError> {
    setrlimit(resource, both(limit)).map_err(layer("set resource limits"))
}

fn both(limit: u64) -> Rlimit {
    Rlimit { current: Some(limit), maximum: Some(limit) }
}
