//! Which ready VM a request enters: power of two choices on requests in flight.
//!
//! Two random VMs are looked at and the less busy one is taken, which keeps the load even without a shared counter
//! (Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing"). Below the soft limit comes first: only
//! when every VM has reached it do requests go up to the hard limit. Of two equally busy VMs the older one is taken,
//! so that in quiet times the youngest run idle and can go.

use std::sync::Arc;

use crate::vm::Vm;

/// A place taken in a VM's gate.
#[derive(Debug)]
pub(crate) struct Entered<'a> {
    pub(crate) vm: &'a Arc<Vm>,
    /// All VMs had reached the soft limit: the pool is too small.
    pub(crate) above_soft: bool,
}

/// Enters one of `vms` (oldest first), if any has room below `hard`. `random(n)` is uniform in `0..n`.
pub(crate) fn enter(
    vms: &[Arc<Vm>],
    soft: u32,
    hard: u32,
    mut random: impl FnMut(usize) -> usize,
) -> Option<Entered<'_>> {
    let below = enter_below(vms, soft.min(hard), &mut random).map(|vm| Entered { vm, above_soft: false });
    below.or_else(|| enter_below(vms, hard, &mut random).map(|vm| Entered { vm, above_soft: true }))
}

fn enter_below<'a>(
    vms: &'a [Arc<Vm>],
    limit: u32,
    random: &mut impl FnMut(usize) -> usize,
) -> Option<&'a Arc<Vm>> {
    let first = match vms.len() {
        0 => return None,
        1 => 0,
        count => less_busy(vms, random(count), random(count - 1)),
    };
    // Usually the first try enters; near saturation all are tried, so that no place is overlooked.
    (0..vms.len()).map(|step| &vms[(first + step) % vms.len()]).find(|vm| vm.gate.enter(limit).is_some())
}

/// `a` and `b` are made two different indices by skipping `a` in `b`'s range.
fn less_busy(vms: &[Arc<Vm>], a: usize, b: usize) -> usize {
    let b = if b >= a { b + 1 } else { b };
    let (older, younger) = (a.min(b), a.max(b));
    if vms[younger].gate.in_flight() < vms[older].gate.in_flight() { younger } else { older }
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
        (0..count).map(|id| Arc::new(Vm::new(VmId(id), ([127, 0, 0, 1], 1).into(), now))).collect()
    }

    proptest! {
        #[test]
        fn soft_fills_before_hard_and_no_place_is_overlooked(count in 0..6u64, soft in 1..5u32, more in 0..5u32, seed: u64) {
            let (vms, hard) = (vms(count), soft + more);
            let mut rng = StdRng::seed_from_u64(seed);
            let total = u32::try_from(count).unwrap();
            for nth in 0..total * hard {
                let entered = enter(&vms, soft, hard, |n| rng.random_range(0..n)).unwrap();
                prop_assert_eq!(entered.above_soft, nth >= total * soft);
            }
            prop_assert!(enter(&vms, soft, hard, |n| rng.random_range(0..n)).is_none());
            prop_assert!(vms.iter().all(|vm| vm.gate.in_flight() == hard));
        }
    }

    #[test]
    fn equally_busy_goes_to_the_older_and_busier_to_the_other() {
        let vms = vms(2);
        let pick = |_| 0;
        assert_eq!(enter(&vms, 4, 4, pick).unwrap().vm.id, VmId(0));
        assert_eq!(enter(&vms, 4, 4, pick).unwrap().vm.id, VmId(1));
    }

    #[test]
    fn closed_gates_are_passed_over() {
        let vms = vms(3);
        vms[0].gate.close();
        vms[1].gate.close();
        assert_eq!(enter(&vms, 1, 1, |_| 0).unwrap().vm.id, VmId(2));
        assert!(enter(&vms, 1, 1, |_| 0).is_none());
    }
}
