//! Which VM a request enters that would like to come to a certain one: the one that its `rank` puts highest among those
//! that have room, before any look at how busy they are.
//!
//! Every VM is looked at, since only who asks knows the ranks. Room is looked at first: a rank may be a hash.

use std::net::SocketAddr;
use std::sync::Arc;

use weir_config::model::Isolation;
use weir_vmm::VmId;

use super::{Ready, enter_this};
use crate::vm::Vm;

/// Tries to enter before others are left to be quicker. The usual choice follows.
const TRIES: usize = 4;

/// One of a pool's VMs, or servers, as far as it is the same that a request wants to come back to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Member {
    /// This VM, and no other after it.
    Vm(VmId),
    /// Whoever serves at this address outside, after an absence too.
    Server(SocketAddr),
}

impl Ready {
    /// Enters the VM with the highest `rank`, of those that have one and room; a VM that is isolated is nobody's to come
    /// back to.
    pub(crate) fn enter_ranked(&self, rank: impl Fn(Member) -> Option<u64>) -> Option<&Arc<Vm>> {
        if self.isolation != Isolation::Vm {
            return None;
        }
        (0..TRIES).find_map(|_| match self.highest(&rank) {
            None => Some(None),
            Some(vm) => enter_this(vm, self.isolation, self.hard).then_some(Some(vm)),
        })?
    }

    fn highest(&self, rank: impl Fn(Member) -> Option<u64>) -> Option<&Arc<Vm>> {
        let with_room = self.vms.iter().filter(|vm| vm.gate.has_room(self.hard));
        let ranked = with_room.filter_map(|vm| Some((rank(vm.member(self.even))?, vm)));
        ranked.max_by_key(|(rank, _)| *rank).map(|(_, vm)| vm)
    }

    /// Whether `vm` has as many requests as scaling aims at.
    pub(crate) fn is_above_soft(&self, vm: &Vm) -> bool {
        vm.gate.in_flight() > self.soft
    }
}

impl Vm {
    /// What it is to those who want to come back to it; `is_server`: it is one outside.
    pub(crate) fn member(&self, is_server: bool) -> Member {
        if is_server { Member::Server(self.address) } else { Member::Vm(self.id) }
    }
}
