//! Resource limits: what even the allowed system calls may not take.

use rustix::process::{Resource, Rlimit, setrlimit};

use super::{Identity, JailError, layer};

/// Highest file descriptor that can still be opened, plus one: standard streams, KVM, VM, vCPU, TAP, control
/// socket, image and a few eventfds.
const FILES: u64 = 32;
/// Tasks of a VM's user. A VM has two: the process, and the kernel thread that KVM starts on its behalf at the first
/// KVM_RUN (kvm-nx-lpage-recovery). If that cannot be made, KVM_RUN fails with EAGAIN for ever, so there is room for
/// some VMs of other launchers that chose the same users.
const TASKS: u64 = 16;

/// Sets the limits, soft and hard. Memory is not limited by address space: guest memory is mapped whole and filled
/// page by page.
pub(super) fn apply(identity: Identity) -> Result<(), JailError> {
    let limits = [
        (Resource::Nofile, FILES),
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
    let limit = Rlimit { current: Some(limit), maximum: Some(limit) };
    setrlimit(resource, limit).map_err(layer("set resource limits"))
}
