//! Easing out: of VMs that are in use, too many.
//!
//! Whether a guest works by itself cannot be told while it has a request every moment, and those that are too many all do,
//! since requests are spread. So such a VM is taken out of choice first. When its last lease has ended and its guest has
//! been quiet for [`LULL`], it is stopped; one that works may end its work, unless other pools wait for its room.

use tokio::time::Instant;
use weir_vmm::VmId;

use super::{Entry, Life, Roster};
use crate::idle::{LULL, Rule, Verdict};

/// One in so many VMs may be draining for being in use when another is due, and one in any case.
const DRAINING: u32 = 8;

impl Roster {
    /// Takes `id` out of choice.
    pub(crate) fn ease_out(&mut self, id: VmId) -> bool {
        let drains = self.drain(id).is_some();
        if let Some(entry) = self.entries.get_mut(&id).filter(|_| drains) {
            entry.eased = true;
        }
        drains
    }

    /// How many more may be taken out of choice for being in use.
    pub(crate) fn may_be_eased_out(&self) -> u32 {
        let instances = self.instances();
        ((instances.starting + instances.ready) / DRAINING).max(1).saturating_sub(instances.draining)
    }

    /// Whether `id`, which has no request and is not idle, is so only for requests that it had just now.
    pub(crate) fn is_in_use(&self, id: VmId, rule: Rule, now: Instant) -> bool {
        let Some(Life::Ready(vm)) = self.entries.get(&id).map(|entry| &entry.life) else { return false };
        !rule.reclaim && now < vm.idle_since() + LULL.min(rule.idle_timeout)
    }

    /// Looks whether those without a request are quiet by now, so that they can be stopped. When to look again.
    pub(crate) fn look_at_eased(&mut self, now: Instant) -> Option<Instant> {
        let mut left = false;
        for entry in self.entries.values_mut().filter(|entry| entry.is_eased_and_empty()) {
            let Life::Draining(vm) = &entry.life else { continue };
            let rule = Rule { idle_timeout: LULL, reclaim: false };
            let verdict = entry.background.verdict(rule, vm.idle_since(), now);
            if verdict == Verdict::Ask {
                vm.ask_for_owner();
            }
            entry.eased = verdict != Verdict::Idle;
            left |= entry.eased;
        }
        left.then(|| now + LULL)
    }

    /// Those without a request that may still work.
    pub(crate) fn eased(&self) -> u32 {
        let count = self.entries.values().filter(|entry| entry.is_eased_and_empty()).count();
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// Does not wait for so many of them any longer, as far as there are any: how many.
    pub(crate) fn hurry(&mut self, count: u32) -> u32 {
        let eased = self.entries.values_mut().filter(|entry| entry.is_eased_and_empty());
        let hurried = eased.take(count as usize).map(|entry| entry.eased = false);
        u32::try_from(hurried.count()).unwrap_or(u32::MAX)
    }
}

impl Entry {
    fn is_eased_and_empty(&self) -> bool {
        self.eased && matches!(&self.life, Life::Draining(vm) if vm.gate.in_flight() == 0)
    }
}
