//! Which ready VM a request enters: power of two choices on requests in flight.
//!
//! Two random VMs are looked at and the less busy one is taken, which keeps the load even without a shared counter
//! (Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing"). Below the soft limit comes first: only
//! when every VM has reached it do requests go up to the hard limit. Of two equally busy VMs the older one is taken,
//! so that in quiet times the youngest run idle and can go.
//!
//! An isolated VM has room for one tenancy or none, so that both limits are one.

use std::sync::Arc;

use weir_config::model::Isolation;

use crate::gate::{Gate, State};
use crate::vm::Vm;

/// A place taken in a VM's gate.
#[derive(Debug)]
pub(crate) struct Entered<'a> {
    pub(crate) vm: &'a Arc<Vm>,
    /// All VMs had reached the soft limit: the pool is too small.
    pub(crate) above_soft: bool,
}

/// Enters one of `vms` (oldest first), if any has room below `hard`; for a new tenancy where VMs are isolated.
/// `random(n)` is uniform in `0..n`.
pub(crate) fn enter(
    vms: &[Arc<Vm>],
    isolation: Isolation,
    soft: u32,
    hard: u32,
    mut random: impl FnMut(usize) -> usize,
) -> Option<Entered<'_>> {
    let soft = soft.min(hard);
    if isolation != Isolation::Vm {
        return enter_where(vms, Gate::occupy, &mut random).map(|vm| Entered { vm, above_soft: false });
    }
    let mut below = |limit| enter_where(vms, |gate| gate.enter(limit).is_some(), &mut random);
    let first = below(soft).map(|vm| Entered { vm, above_soft: false });
    first.or_else(|| below(hard).map(|vm| Entered { vm, above_soft: true }))
}

fn enter_where<'a>(
    vms: &'a [Arc<Vm>],
    enter: impl Fn(&Gate) -> bool,
    random: &mut impl FnMut(usize) -> usize,
) -> Option<&'a Arc<Vm>> {
    let first = match vms.len() {
        0 => return None,
        1 => 0,
        count => less_busy(vms, random(count), random(count - 1)),
    };
    // Usually the first try enters; near saturation all are tried, so that no place is overlooked.
    (0..vms.len()).map(|step| &vms[(first + step) % vms.len()]).find(|vm| enter(&vm.gate))
}

/// `a` and `b` are made two different indices by skipping `a` in `b`'s range.
fn less_busy(vms: &[Arc<Vm>], a: usize, b: usize) -> usize {
    let b = if b >= a { b + 1 } else { b };
    let (older, younger) = (a.min(b), a.max(b));
    if business(&vms[younger].gate) < business(&vms[older].gate) { younger } else { older }
}

/// Requests in flight; one that no request can enter now, though it has none, counts as having one.
fn business(gate: &Gate) -> u32 {
    match gate.state() {
        (in_flight, State::Free) => in_flight,
        (in_flight, _) => in_flight.max(1),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::{Rng, SeedableRng, rngs::StdRng};
    use tokio::time::Instant;
    use weir_vmm::VmId;

    use super::*;

    fn vms(count: u64) -> Vec<Arc<Vm>> {
        let now = Instant::now();
        (0..count).map(|id| Arc::new(Vm::undriven(VmId(id), now))).collect()
    }

    proptest! {
        #[test]
        fn soft_fills_before_hard_and_no_place_is_overlooked(count in 0..6u64, soft in 1..5u32, more in 0..5u32, seed: u64) {
            let (vms, hard) = (vms(count), soft + more);
            let mut rng = StdRng::seed_from_u64(seed);
            let total = u32::try_from(count).unwrap();
            for nth in 0..total * hard {
                let entered = enter(&vms, Isolation::Vm, soft, hard, |n| rng.random_range(0..n)).unwrap();
                prop_assert_eq!(entered.above_soft, nth >= total * soft);
            }
            prop_assert!(enter(&vms, Isolation::Vm, soft, hard, |n| rng.random_range(0..n)).is_none());
            prop_assert!(vms.iter().all(|vm| vm.gate.in_flight() == hard));
        }
    }

    #[test]
    fn equally_busy_goes_to_the_older_and_busier_to_the_other() {
        let vms = vms(2);
        let pick = |_| 0;
        assert_eq!(enter(&vms, Isolation::Vm, 4, 4, pick).unwrap().vm.id, VmId(0));
        assert_eq!(enter(&vms, Isolation::Vm, 4, 4, pick).unwrap().vm.id, VmId(1));
    }

    #[test]
    fn closed_gates_are_passed_over() {
        let vms = vms(3);
        vms[0].gate.close();
        vms[1].gate.close();
        assert_eq!(enter(&vms, Isolation::Vm, 1, 1, |_| 0).unwrap().vm.id, VmId(2));
        assert!(enter(&vms, Isolation::Vm, 1, 1, |_| 0).is_none());
    }

    #[test]
    fn an_isolated_vm_has_room_for_one_and_none_when_dirty() {
        let vms = vms(2);
        let enter = || enter(&vms, Isolation::Request, 1, 1, |_| 0).map(|entered| entered.vm.id);
        assert_eq!([enter(), enter(), enter()], [Some(VmId(0)), Some(VmId(1)), None]);
        vms[1].gate.leave();
        assert_eq!(enter(), None);
        assert!(vms[1].gate.renew());
        assert_eq!(enter(), Some(VmId(1)));
    }
}
