//! Resource limits: what even the allowed system calls may not take.

use rustix::process::{Resource, Rlimit, setrlimit};

use super::{JailError, layer};

/// Highest file descriptor that can still be opened, plus one: standard streams, KVM, VM, vCPU, TAP, control
/// socket, image and a few eventfds.
const FILES: u64 = 32;

/// Sets the limits, soft and hard. Memory is not limited by address space: guest memory is mapped whole and filled
/// page by page.
pub(super) fn apply() -> Result<(), JailError> {
    let limits = [
        (Resource::Nofile, FILES),
        // Nothing may be forked; the process itself exists already, so it is not counted against this.
        (Resource::Nproc, 0),
        (Resource::Fsize, 0),
        (Resource::Core, 0),
        (Resource::Memlock, 0),
        (Resource::Msgqueue, 0),
    ];
    for (resource, limit) in limits {
        let limit = Rlimit { current: Some(limit), maximum: Some(limit) };
        setrlimit(resource, limit).map_err(layer("set resource limits"))?;
    }
    Ok(())
}
