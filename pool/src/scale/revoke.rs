//! Which idle connections lose their VM.

use tokio::time::Instant;
use weir_vmm::VmId;

use super::{Phase, View, VmView};

/// Whose connections without a request in flight lose their VM now, the longest idle first. `started` VMs could be
/// started on a decision about the same view that retired `retired`.
pub fn revocations(view: &View<'_>, retired: &[VmId], started: u32, now: Instant) -> Vec<VmId> {
    let mut idle: Vec<_> = view
        .of(Phase::Ready)
        .filter(|vm| vm.held && vm.in_flight == 0 && !retired.contains(&vm.id))
        .map(|vm| (vm.idle_since, vm.id))
        .collect();
    idle.sort_unstable();
    let due = idle.partition_point(|(since, _)| *since + view.limits.idle_timeout <= now);
    let is_coming = |vm: &&VmView| match vm.phase {
        Phase::Starting | Phase::Resetting => true,
        Phase::Ready => !vm.held && vm.in_flight == 0,
        Phase::Draining | Phase::Stopping => false,
    };
    let coming = view.vms.iter().filter(is_coming).count() + started as usize;
    let count = view.queued.saturating_sub(coming).max(due);
    idle.into_iter().take(count).map(|(_, id)| id).collect()
}
