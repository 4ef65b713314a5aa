//! What others see of a pool of servers.

use tokio::time::Instant;

use super::servers::{Server, Servers};
use crate::launcher::Revision;
use crate::pool::Instances;
use crate::status::{PoolStatus, VmState, VmStatus};

impl Servers {
    /// Shows requests and metrics the servers as they are now.
    pub(super) fn publish(&mut self) {
        if !std::mem::take(&mut self.changed) {
            return;
        }
        let ready = self.members.values().filter(|server| server.standing.is_in_service() && !server.leaving);
        let ready: Vec<_> = ready.map(|server| server.vm.clone()).collect();
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let (in_service, leaving) =
            (count(ready.len()), count(self.members.values().filter(|server| server.leaving).count()));
        self.series.in_service.set(in_service.into());
        self.series.leaving.set(leaving.into());
        self.series.out_of_service.set(i64::from(count(self.members.len()) - in_service - leaving));
        self.shared.set_ready(ready);
        let instances = Instances { ready: in_service, draining: leaving, ..Instances::default() };
        self.shared.instances.send_replace(instances);
    }

    /// The pool as those are told who ask.
    pub(super) fn status(&self, now: Instant) -> PoolStatus {
        let vms = self.members.values().map(|server| VmStatus {
            id: server.vm.id,
            state: server.state(),
            address: Some(server.vm.address),
            in_flight: server.vm.gate.in_flight(),
            age: now.saturating_duration_since(server.vm.ready_at),
            start: None,
            revision: Revision::FIRST,
        });
        PoolStatus {
            instances: *self.shared.instances.borrow(),
            queued: self.shared.waiting(),
            desired: 0,
            template: false,
            revision: Revision::FIRST,
            rollout: None,
            vms: vms.collect(),
        }
    }
}

impl Server {
    fn state(&self) -> VmState {
        match (self.leaving, self.standing.is_in_service()) {
            (true, _) => VmState::Draining,
            (false, true) => VmState::Ready,
            (false, false) => VmState::Out,
        }
    }
}
