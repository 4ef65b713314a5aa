//! One VM as its pool's owner knows it, and as others are to see it.

use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::time::Instant;
use weir_vmm::VmId;

use crate::budget::{Reservation, Turn};
use crate::gate::State;
use crate::idle::Background;
use crate::launcher::Revision;
use crate::rollout;
use crate::scale::{Phase, VmView};
use crate::status::{VmState, VmStatus};
use crate::vm::Vm;

/// One VM.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) life: Life,
    pub(crate) started_at: Instant,
    pub(super) background: Background,
    pub(crate) revision: Revision,
    pub(super) stop: Option<oneshot::Sender<()>>,
    pub(super) _room: Reservation,
    /// While its start counts as one under way.
    pub(super) turn: Option<Turn>,
    /// Drains, but is not to be stopped before its guest is quiet.
    pub(super) eased: bool,
}

/// Where in its life, see [`super`].
#[derive(Debug)]
pub(crate) enum Life {
    Starting,
    Ready(Arc<Vm>),
    Draining(Arc<Vm>),
    Stopping,
}

impl Life {
    /// The VM, if it was ready once and weir has not stopped it.
    pub(super) fn vm(&self) -> Option<&Arc<Vm>> {
        match self {
            Self::Ready(vm) | Self::Draining(vm) => Some(vm),
            Self::Starting | Self::Stopping => None,
        }
    }
}

impl Entry {
    /// Stops it, whatever requests it has.
    pub(super) fn end(&mut self) {
        if let Some(vm) = std::mem::replace(&mut self.life, Life::Stopping).vm() {
            vm.set_gone();
        }
        if let Some(stop) = self.stop.take() {
            // A task that has ended has said so, and its message is on its way.
            let _ = stop.send(());
        }
    }

    pub(super) fn rollout_view(&self, id: VmId, revision: Revision) -> rollout::VmView {
        let VmView { phase, in_flight, .. } = self.view(id);
        let ready_at = self.life.vm().map_or(self.started_at, |vm| vm.ready_at);
        rollout::VmView { id, phase, in_flight, new: self.revision == revision, ready_at }
    }

    pub(super) fn status(&self, id: VmId, now: Instant) -> VmStatus {
        let view = self.view(id);
        let vm = self.life.vm();
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

    pub(super) fn view(&self, id: VmId) -> VmView {
        let phase = match &self.life {
            Life::Starting => Phase::Starting,
            Life::Ready(_) => Phase::Ready,
            Life::Draining(_) => Phase::Draining,
            Life::Stopping => Phase::Stopping,
        };
        let vm = self.life.vm();
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
