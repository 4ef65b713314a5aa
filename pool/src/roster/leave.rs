//! The ways out: for being idle, for being replaced, for being of no use, and with weir.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use weir_vmm::VmId;

use super::{Entry, Life, Roster};
use crate::idle::{Found, Rule, Verdict};
use crate::launcher::Revision;
use crate::vm::Vm;

impl Roster {
    /// Takes `id` out of choice; it is stopped when its last lease has ended.
    pub(crate) fn drain(&mut self, id: VmId) -> Option<&Entry> {
        let entry = self.entries.get_mut(&id)?;
        let Life::Ready(vm) = &entry.life else { return None };
        vm.gate.close();
        entry.life = Life::Draining(vm.clone());
        self.ready_changed = true;
        Some(entry)
    }

    /// Takes `id` out of choice if it has no request; whether it did. One that seemed idle may have been given a request
    /// since somebody looked, and the end of that request is no event: whoever gets `false` has to look again.
    pub(crate) fn retire(&mut self, id: VmId) -> bool {
        match self.entries.get(&id).map(|entry| &entry.life) {
            Some(Life::Ready(vm)) if vm.gate.close_if_idle() => self.drain(id).is_some(),
            _ => false,
        }
    }

    /// Whether the guest of `id`, which is to go, may by `rule`; if that is not known its process is asked, whose answer is
    /// for [`Self::reported`].
    pub(crate) fn is_idle(&mut self, id: VmId, rule: Rule, now: Instant) -> bool {
        let Some(Entry { life: Life::Ready(vm), background, .. }) = self.entries.get_mut(&id) else {
            return false;
        };
        let verdict = background.verdict(rule, vm.idle_since(), now);
        if verdict == Verdict::Ask {
            vm.ask_for_owner();
        }
        verdict == Verdict::Idle
    }

    /// The answer of `id`'s process; what it means, if it was asked.
    pub(crate) fn reported(&mut self, id: VmId, quiet: Option<Duration>, now: Instant) -> Option<Found> {
        let Entry { life, background, .. } = self.entries.get_mut(&id)?;
        background.heard(quiet, life.vm()?.idle_since(), now)
    }

    /// Ends the stay of a connection that has no request in `id`; the VM, which is for the caller to reset, if it did.
    pub(crate) fn revoke(&mut self, id: VmId) -> Option<&Arc<Vm>> {
        match &self.entries.get(&id)?.life {
            Life::Ready(vm) if vm.gate.revoke() => Some(vm),
            _ => None,
        }
    }

    /// Ends `id` by force, whatever requests it has, if it was ready once; what it was made from, since
    /// when it was starting, and the VM.
    pub(crate) fn abandon(&mut self, id: VmId) -> Option<(Revision, Instant, Arc<Vm>)> {
        let entry = self.entries.get_mut(&id)?;
        let vm = entry.life.vm()?.clone();
        self.ready_changed |= matches!(entry.life, Life::Ready(_));
        entry.life = Life::Stopping;
        vm.set_gone();
        vm.kill();
        Some((entry.revision, entry.started_at, vm))
    }

    /// Stops those that drain and have no request left, but for those that are eased out.
    pub(crate) fn stop_drained(&mut self) {
        let is_empty = |life: &Life| matches!(life, Life::Draining(vm) if vm.gate.in_flight() == 0);
        self.stop_if(|entry| is_empty(&entry.life) && !entry.eased);
    }

    /// Takes `id` out of choice, or stops it if it never was in it; it is then no failure that it ends.
    pub(crate) fn take_out(&mut self, id: VmId) {
        self.drain(id);
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.eased = false;
            if matches!(entry.life, Life::Starting) {
                entry.end();
            }
        }
    }

    /// Takes all of a revision out, see [`Self::take_out`].
    pub(crate) fn take_out_all(&mut self, revision: Revision) {
        let of = self.entries.iter().filter(|(_, entry)| entry.revision == revision);
        for id in of.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.take_out(id);
        }
    }

    /// Whether none is left of those whose id is below this one.
    pub(crate) fn is_past(&self, id: VmId) -> bool {
        self.entries.first_key_value().is_none_or(|(first, _)| *first >= id)
    }

    /// Takes all out of choice, and stops those that never were in it.
    pub(crate) fn drain_all(&mut self) {
        for id in self.entries.keys().copied().collect::<Vec<_>>() {
            self.drain(id);
        }
        self.entries.values_mut().for_each(|entry| entry.eased = false);
        self.stop_if(|entry| matches!(entry.life, Life::Starting));
        self.stop_drained();
    }

    /// Stops all, whatever requests they have.
    pub(crate) fn stop_all(&mut self) {
        self.drain_all();
        self.stop_if(|_| true);
    }

    fn stop_if(&mut self, condition: impl Fn(&Entry) -> bool) {
        for entry in self.entries.values_mut().filter(|entry| condition(entry)) {
            entry.end();
        }
    }
}
