//! What decides in a simulation how many VMs a pool has.

use tokio::time::Instant;
use weir_vmm::VmId;

use crate::scale::VmView;

/// A pool as a policy sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen<'a> {
    /// All VMs that are not gone, oldest first.
    pub(crate) vms: &'a [VmView],
    /// Requests that wait.
    pub(crate) queued: usize,
}

/// What a policy wants done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Actions {
    /// VMs to start, as far as the host has room.
    pub(crate) start: u32,
    /// VMs that get no request any more, and end when their last one has. Those that are starting end at once.
    pub(crate) drain: Vec<VmId>,
    /// When to decide again if nothing happens before.
    pub(crate) look_again: Option<Instant>,
}

/// Decides for one pool. It is asked whenever the pool's owner task would look: when a request begins to wait, or finds
/// no VM below the soft limit; when a VM is READY or gone, or idle while requests wait; at the time it set; and when the
/// host has room again for a VM that it wanted.
pub(crate) trait Policy {
    /// From now on so many requests are in flight or wait. Only for who could know that at any time.
    fn demand(&mut self, _requests: u32, _now: Instant) {}

    /// What to do now.
    fn decide(&mut self, seen: &Seen<'_>, now: Instant) -> Actions;
}
