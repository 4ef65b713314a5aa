//! A pool's VMs as its owner knows them.
//!
//! ```text
//!                          lost: killed, whatever leases there are
//!                        +-------------------------------+----------------------------+
//!                        |                               |                            v
//!  Starting --READY--> Ready --retired or suspect--> Draining --last lease ends--> Stopping
//!     |                  |                               |                            |
//!     | failed, or       | exit                          | exit                       | exit
//!     v late: killed     v                               v                            v
//!   (gone) <-------------+-------------------------------+----------------------------+
//! ```
//!
//! Where requests or connections are isolated, a ready VM is at times not clean and takes nobody (see [`crate::gate`]). It
//! gets clean again without the owner's doing; when it drains meanwhile it is stopped as it is.
//!
//! An entry lives exactly as long as the VM's process, and so does its room in the host's budget.

mod ease;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;
use weir_vmm::VmId;

use crate::budget::{Reservation, Turn};
use crate::gate::State;
use crate::idle::{Background, Found, Rule, Verdict};
use crate::launcher::Revision;
use crate::pool::Instances;
use crate::rollout;
use crate::scale::{Phase, VmView};
use crate::status::{VmState, VmStatus};
use crate::vm::Vm;

/// How long a start counts as one under way, of which the host bears only so many. Starts that take longer do not do so
/// for want of a processor; and one pool's guests that never become READY must not keep the others' from starting.
const TURN: Duration = Duration::from_millis(250);

/// All VMs whose process is not known to be gone; ids grow, so the oldest comes first.
#[derive(Debug, Default)]
pub(crate) struct Roster {
    entries: BTreeMap<VmId, Entry>,
    /// The set of ready VMs is not the one that was last asked for.
    ready_changed: bool,
}

/// One VM.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) life: Life,
    pub(crate) started_at: Instant,
    background: Background,
    pub(crate) revision: Revision,
    stop: Option<oneshot::Sender<()>>,
    _room: Reservation,
    /// While its start counts as one under way.
    turn: Option<Turn>,
    /// Drains, but is not to be stopped before its guest is quiet.
    eased: bool,
}

/// Where in its life, see the module's documentation.
#[derive(Debug)]
pub(crate) enum Life {
    Starting,
    Ready(Arc<Vm>),
    Draining(Arc<Vm>),
    Stopping,
}

impl Roster {
    /// Enters a VM whose task ends it when told by `stop`.
    pub(crate) fn starting(
        &mut self,
        id: VmId,
        revision: Revision,
        stop: oneshot::Sender<()>,
        (room, turn): (Reservation, Turn),
        now: Instant,
    ) {
        let (stop, turn) = (Some(stop), Some(turn));
        let (life, background) = (Life::Starting, Background::default());
        let entry =
            Entry { life, started_at: now, background, revision, stop, _room: room, turn, eased: false };
        self.entries.insert(id, entry);
    }

    /// Gives up the turns of starts that have taken long: they wait for something, or hang. When the next one is due.
    pub(crate) fn lapse_turns(&mut self, now: Instant) -> Option<Instant> {
        let with_turn = self.entries.values_mut().filter(|entry| entry.turn.is_some());
        let lapsing = with_turn.filter_map(|entry| {
            let lapses = entry.started_at + TURN;
            if lapses <= now {
                entry.turn = None;
            }
            (lapses > now).then_some(lapses)
        });
        lapsing.min()
    }

    /// `vm` is READY; since when it was starting. `None` if it is being stopped already.
    pub(crate) fn ready(&mut self, vm: Vm) -> Option<Instant> {
        let entry = self.entries.get_mut(&vm.id).filter(|entry| matches!(entry.life, Life::Starting))?;
        entry.life = Life::Ready(Arc::new(vm));
        entry.turn = None;
        self.ready_changed = true;
        Some(entry.started_at)
    }

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
        match self.entries.get_mut(&id)? {
            Entry { life: Life::Ready(vm) | Life::Draining(vm), background, .. } => {
                background.heard(quiet, vm.idle_since(), now)
            }
            _ => None,
        }
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
        let (Life::Ready(vm) | Life::Draining(vm)) = &entry.life else { return None };
        let vm = vm.clone();
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

    /// `id`, if it was ready once and weir has not stopped it.
    pub(crate) fn unstopped(&self, id: VmId) -> Option<&Arc<Vm>> {
        match &self.entries.get(&id)?.life {
            Life::Ready(vm) | Life::Draining(vm) => Some(vm),
            Life::Starting | Life::Stopping => None,
        }
    }

    /// `id`'s process is gone.
    pub(crate) fn gone(&mut self, id: VmId) -> Option<Entry> {
        let entry = self.entries.remove(&id)?;
        if let Life::Ready(vm) | Life::Draining(vm) = &entry.life {
            vm.set_gone();
            self.ready_changed |= matches!(entry.life, Life::Ready(_));
        }
        Some(entry)
    }

    /// The ready VMs, oldest first, if they are others than at the last call.
    pub(crate) fn changed_ready(&mut self) -> Option<Vec<Arc<Vm>>> {
        std::mem::take(&mut self.ready_changed).then(|| self.ready_vms().cloned().collect())
    }

    pub(crate) fn ready_vms(&self) -> impl Iterator<Item = &Arc<Vm>> {
        self.entries.values().filter_map(|entry| match &entry.life {
            Life::Ready(vm) => Some(vm),
            Life::Starting | Life::Draining(_) | Life::Stopping => None,
        })
    }

    pub(crate) fn views(&self) -> Vec<VmView> {
        self.entries.iter().map(|(id, entry)| entry.view(*id)).collect()
    }

    /// As a rollout to `revision` sees them.
    pub(crate) fn rollout_views(&self, revision: Revision) -> Vec<rollout::VmView> {
        self.entries.iter().map(|(id, entry)| entry.rollout_view(*id, revision)).collect()
    }

    /// For people to look at.
    pub(crate) fn statuses(&self, now: Instant) -> Vec<VmStatus> {
        self.entries.iter().map(|(id, entry)| entry.status(*id, now)).collect()
    }

    /// How many take requests, or are about to.
    pub(crate) fn live(&self) -> u32 {
        let instances = self.instances();
        instances.starting + instances.ready
    }

    pub(crate) fn instances(&self) -> Instances {
        let mut instances = Instances::default();
        for entry in self.entries.values() {
            *match entry.life {
                Life::Starting => &mut instances.starting,
                Life::Ready(_) => &mut instances.ready,
                Life::Draining(_) => &mut instances.draining,
                Life::Stopping => &mut instances.stopping,
            } += 1;
        }
        instances
    }
}

impl Entry {
    /// Stops it, whatever requests it has.
    fn end(&mut self) {
        if let Life::Ready(vm) | Life::Draining(vm) = std::mem::replace(&mut self.life, Life::Stopping) {
            vm.set_gone();
        }
        if let Some(stop) = self.stop.take() {
            // A task that has ended has said so, and its message is on its way.
            let _ = stop.send(());
        }
    }

    fn rollout_view(&self, id: VmId, revision: Revision) -> rollout::VmView {
        let VmView { phase, in_flight, .. } = self.view(id);
        let ready_at = match &self.life {
            Life::Ready(vm) | Life::Draining(vm) => vm.ready_at,
            Life::Starting | Life::Stopping => self.started_at,
        };
        rollout::VmView { id, phase, in_flight, new: self.revision == revision, ready_at }
    }

    fn status(&self, id: VmId, now: Instant) -> VmStatus {
        let view = self.view(id);
        let vm = match &self.life {
            Life::Ready(vm) | Life::Draining(vm) => Some(vm),
            Life::Starting | Life::Stopping => None,
        };
        VmStatus {
            id,
            state: VmState::from(view.phase),
            address: vm.map(|vm| vm.address),
            in_flight: view.in_flight,
            age: now.saturating_duration_since(self.started_at),
            start: vm.map(|vm| vm.start),
            revision: self.revision,
        }
    }

    fn view(&self, id: VmId) -> VmView {
        let (phase, vm) = match &self.life {
            Life::Starting => (Phase::Starting, None),
            Life::Ready(vm) => (Phase::Ready, Some(vm)),
            Life::Draining(vm) => (Phase::Draining, Some(vm)),
            Life::Stopping => (Phase::Stopping, None),
        };
        let used_until = vm.map_or(self.started_at, |vm| vm.idle_since());
        let (in_flight, state) = vm.map_or((0, State::Free), |vm| vm.gate.state());
        // A connection that asks for nothing does not keep a VM by what that does.
        let is_held = state == State::Held;
        let idle_since = if is_held { used_until } else { self.background.idle_since(used_until) };
        let phase = if (phase, state) == (Phase::Ready, State::Dirty) { Phase::Resetting } else { phase };
        let in_flight = if state == State::Free { in_flight } else { in_flight.min(1) };
        VmView { id, phase, in_flight, held: is_held, idle_since }
    }
}

#[cfg(test)]
mod tests {
    use weir_config::model::Config;

    use super::*;
    use crate::budget::HostBudget;
    use crate::fake;

    fn one_ready(now: Instant) -> (Roster, VmId) {
        let config: Config = fake::config([fake::pool("p")]);
        let share = HostBudget::new(&config).expect("the host has room").share(0);
        let (mut roster, id) = (Roster::default(), VmId(1));
        let turn = share.turns(1).pop().expect("nobody else starts any");
        let place = (share.reserve().expect("room"), turn);
        roster.starting(id, Revision::FIRST, oneshot::channel().0, place, now);
        roster.ready(Vm::undriven(id, now));
        (roster, id)
    }

    #[test]
    fn a_vm_that_got_a_request_since_it_was_seen_is_not_retired_and_that_is_told() {
        let (mut roster, id) = one_ready(Instant::now());
        let vm = roster.ready_vms().next().expect("it is ready").clone();
        vm.gate.enter(1).expect("there is a place");
        assert!(!roster.retire(id));
        vm.gate.leave();
        assert!(roster.retire(id));
    }

    #[test]
    fn only_a_connection_without_a_request_loses_its_vm() {
        let (mut roster, id) = one_ready(Instant::now());
        let vm = roster.ready_vms().next().expect("it is ready").clone();
        let seen = |roster: &Roster| {
            let view = roster.views()[0];
            (view.phase, view.in_flight, view.held)
        };
        assert!(vm.gate.occupy() && vm.gate.keep() && vm.gate.enter_held(0));
        assert_eq!((seen(&roster), roster.revoke(id).is_some()), ((Phase::Ready, 1, true), false));
        vm.gate.leave();
        vm.gate.leave();
        assert_eq!((seen(&roster), roster.revoke(id).is_some()), ((Phase::Ready, 0, true), true));
        assert_eq!((seen(&roster), roster.retire(id)), ((Phase::Resetting, 0, false), false));
    }
}
