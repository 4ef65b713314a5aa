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
mod entry;
mod leave;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;
use weir_vmm::VmId;

use crate::budget::{Reservation, Turn};
use crate::idle::Background;
use crate::launcher::Revision;
use crate::pool::Instances;
use crate::rollout;
use crate::scale::VmView;
use crate::status::VmStatus;
use crate::vm::Vm;
pub(crate) use entry::{Entry, Life};

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

    /// `id`, if it was ready once and weir has not stopped it.
    pub(crate) fn unstopped(&self, id: VmId) -> Option<&Arc<Vm>> {
        self.entries.get(&id)?.life.vm()
    }

    /// `id`'s process is gone.
    pub(crate) fn gone(&mut self, id: VmId) -> Option<Entry> {
        let entry = self.entries.remove(&id)?;
        if let Some(vm) = entry.life.vm() {
            vm.set_gone();
        }
        self.ready_changed |= matches!(entry.life, Life::Ready(_));
        Some(entry)
    }

    /// The ready VMs, oldest first, if they are others than at the last call.
    pub(crate) fn changed_ready(&mut self) -> Option<Vec<Arc<Vm>>> {
        std::mem::take(&mut self.ready_changed).then(|| self.ready_vms().cloned().collect())
    }

    /// The next call of [`Self::changed_ready`] tells them though they are the same.
    pub(crate) fn tell_ready(&mut self) {
        self.ready_changed = true;
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

#[cfg(test)]
mod tests {
    use weir_config::model::Config;

    use super::*;
    use crate::budget::HostBudget;
    use crate::fake;
    use crate::scale::Phase;

    fn one_ready(now: Instant) -> (Roster, VmId) {
        let config: Config = fake::config([fake::pool("p")]);
        let share = HostBudget::new(&config).expect("the host has room").share(&config.pools["p"]);
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
