//! The next step of a rolling replacement: a pure function of the pool's VMs.
//!
//! Replacements come first, as far beyond the pool's usual size as the surge allows; a VM of an earlier revision goes
//! when there is a READY one in its place. Where there is no room for a replacement, one VM goes first and makes it. Room
//! that goes to other pools which it is due to is not waited for: the pool is a smaller one then.
//! Until a replacement has been READY for [`LASTING`] no more than the first step is taken.

use std::cmp::Reverse;

use tokio::time::Instant;
use weir_vmm::VmId;

use crate::backoff::LASTING;
use crate::scale::{Phase, Retry};

/// One quarter of the pool may be replaced at a time.
const PARTS: u32 = 4;

/// A VM as a rollout sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct VmView {
    pub(crate) id: VmId,
    pub(crate) phase: Phase,
    pub(crate) in_flight: u32,
    /// It is of the revision that is rolled out.
    pub(crate) new: bool,
    /// Only meaningful for a VM that has been READY.
    pub(crate) ready_at: Instant,
}

/// Everything that a step depends on, but the time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View<'a> {
    /// How many VMs there were, ready or starting, when the rollout began.
    pub(crate) target: u32,
    /// All processes of the pool that are not gone.
    pub(crate) vms: &'a [VmView],
    /// How many VMs may be started, by the pool's maximum and by what the host has.
    pub(crate) room: u32,
    /// How many VMs the pool may have in all while others want the host, too: no more are replaced than that.
    pub(crate) due: u32,
    /// What earlier failures leave of the right to start VMs.
    pub(crate) retry: Retry,
    /// The revision has shown before that its VMs last.
    pub(crate) proven: bool,
}

/// What to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Step {
    /// VMs of the new revision to start.
    pub(crate) start: u32,
    /// VMs of earlier revisions that take no more requests, and go when they have none.
    pub(crate) take_out: Vec<VmId>,
    /// The new revision has shown that its VMs last.
    pub(crate) proven: bool,
    /// Nothing of an earlier revision takes requests any more, and all replacements are there.
    pub(crate) done: bool,
    /// When to look again if nothing happens before.
    pub(crate) look_again: Option<Instant>,
}

/// How many there are of what.
struct Count {
    /// Of earlier revisions, in use or about to be.
    old: u32,
    new_starting: u32,
    new_ready: u32,
    /// Will make room.
    ending: u32,
}

/// Decides.
pub(crate) fn step(view: &View<'_>, now: Instant) -> Step {
    let view = &View { target: view.target.min(view.due), ..*view };
    let count = Count::of(view.vms);
    let new = count.new_ready + count.new_starting;
    let missing = view.target.saturating_sub(new);
    let proof_at = proof(view.vms);
    let proven = view.proven || proof_at.is_some_and(|at| at <= now);
    let surge = view.target.div_ceil(PARTS).max(1);
    let within = (view.target.saturating_add(surge)).saturating_sub(count.old + new);
    let wanted = missing.min(within).min(view.room);
    let (start, retry_at) = match view.retry {
        Retry::Free => (wanted, None),
        Retry::At(at) if now < at => (0, (wanted > 0).then_some(at)),
        Retry::Probe | Retry::At(_) => (wanted.min(u32::from(count.new_starting == 0)), None),
    };
    let replaced = if proven { (count.old + count.new_ready).saturating_sub(view.target) } else { 0 };
    let in_place = must_make_room(view, &count, missing, proven);
    let take_out = oldest(view.vms, replaced.max(u32::from(in_place)));
    let done = count.old == 0 && missing == 0 && count.new_starting == 0 && (proven || view.target == 0);
    let proof_at = proof_at.filter(|_| !proven);
    Step { start, take_out, proven, done, look_again: retry_at.into_iter().chain(proof_at).min() }
}

impl Count {
    fn of(vms: &[VmView]) -> Self {
        let mut count = Self { old: 0, new_starting: 0, new_ready: 0, ending: 0 };
        for vm in vms {
            *match (vm.phase, vm.new) {
                (Phase::Draining | Phase::Stopping, _) => &mut count.ending,
                (_, false) => &mut count.old,
                (Phase::Starting, true) => &mut count.new_starting,
                (Phase::Ready | Phase::Resetting, true) => &mut count.new_ready,
            } += 1;
        }
        count
    }
}

/// When the revision has shown that its VMs last, if nothing happens before.
fn proof(vms: &[VmView]) -> Option<Instant> {
    let ready = vms.iter().filter(|vm| vm.new && matches!(vm.phase, Phase::Ready | Phase::Resetting));
    ready.map(|vm| vm.ready_at + LASTING).min()
}

/// Whether a VM has to go before there is a replacement for it: nothing else will ever make room. Never a second one
/// before the first has a replacement, for others may have taken its room.
fn must_make_room(view: &View<'_>, count: &Count, missing: u32, proven: bool) -> bool {
    let new = count.new_ready + count.new_starting;
    let nothing_comes = view.room == 0 && count.new_starting == 0 && count.ending == 0;
    missing > 0 && nothing_comes && count.old + new >= view.target && (proven || new == 0)
}

/// `count` VMs of earlier revisions: those that serve nobody yet, then those with the fewest requests.
fn oldest(vms: &[VmView], count: u32) -> Vec<VmId> {
    let old = vms.iter().filter(|vm| !vm.new && !matches!(vm.phase, Phase::Draining | Phase::Stopping));
    let mut old: Vec<_> = old.map(|vm| (Reverse(vm.phase == Phase::Starting), vm.in_flight, vm.id)).collect();
    old.sort_unstable();
    old.into_iter().take(count as usize).map(|(.., id)| id).collect()
}

#[cfg(test)]
mod tests;
