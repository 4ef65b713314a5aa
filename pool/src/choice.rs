//! Which ready VM a request enters: power of two choices on requests in flight.
//!
//! Two random VMs are looked at and the less busy one is taken, which keeps the load even without a shared counter
//! (Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing"). Below the soft limit comes first: only
//! when every VM has reached it do requests go up to the hard limit. Of two equally busy VMs the older one is taken,
//! so that in quiet times the youngest run idle and can go.
//!
//! What it costs does not depend on how many VMs there are, only on how full they are: if the chosen one is full, those
//! behind it are tried, of which one in so many has room. So as not to look at all of a large pool that is at its soft
//! limit, at most [`SOFT_TRIES`] are looked at for that; the hard limit's last place is always found.
//!
//! An isolated VM has room for one tenancy or none, so that both limits are one.

use std::sync::Arc;

use weir_config::model::Isolation;

use crate::gate::{Gate, State};
use crate::vm::Vm;

/// How many VMs are tried for one below its soft limit.
const SOFT_TRIES: usize = 32;

/// A place taken in a VM's gate.
#[derive(Debug)]
pub(crate) struct Entered<'a> {
    pub(crate) vm: &'a Arc<Vm>,
    /// All VMs had reached the soft limit: the pool is too small.
    pub(crate) above_soft: bool,
}

/// Enters one of `vms` (oldest first), if any has room below `hard`; for a new tenancy where VMs are isolated.
/// `random` is uniform.
pub(crate) fn enter(
    vms: &[Arc<Vm>],
    isolation: Isolation,
    soft: u32,
    hard: u32,
    random: u64,
) -> Option<Entered<'_>> {
    let soft = soft.min(hard);
    let first = first(vms, random)?;
    let below = |limit, tries| find(vms, first, tries, |gate| gate.enter(limit).is_some());
    if isolation != Isolation::Vm {
        let vm = find(vms, first, vms.len(), Gate::occupy)?;
        return Some(Entered { vm, above_soft: false });
    }
    match below(soft, SOFT_TRIES.min(vms.len())) {
        Some(vm) => Some(Entered { vm, above_soft: false }),
        None => below(hard, vms.len()).map(|vm| Entered { vm, above_soft: true }),
    }
}

/// Enters this one, if it has room below `hard`, or for a new tenancy; whether it had.
pub(crate) fn enter_this(vm: &Vm, isolation: Isolation, hard: u32) -> bool {
    match isolation {
        Isolation::Vm => vm.gate.enter(hard).is_some(),
        Isolation::Connection | Isolation::Request => vm.gate.occupy(),
    }
}

/// The first of so many, from `first` on and around, that lets somebody in.
fn find(vms: &[Arc<Vm>], first: usize, tries: usize, enter: impl Fn(&Gate) -> bool) -> Option<&Arc<Vm>> {
    let (before, from) = vms.split_at(first);
    from.iter().chain(before).take(tries).find(|vm| enter(&vm.gate))
}

/// The less busy one of two random VMs.
fn first(vms: &[Arc<Vm>], random: u64) -> Option<usize> {
    // A half of the random number for each: a product's upper half is as good as uniform in a range so small (D. Lemire,
    // "Fast Random Integer Generation in an Interval", 2019).
    let below = |count: usize, half: u64| ((count as u64 * half) >> 32) as usize;
    match vms.len() {
        0 => None,
        1 => Some(0),
        count => {
            let (a, b) = (below(count, random & u64::from(u32::MAX)), below(count - 1, random >> 32));
            Some(less_busy(vms, a, b))
        }
    }
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
                let entered = enter(&vms, Isolation::Vm, soft, hard, rng.random()).unwrap();
                prop_assert_eq!(entered.above_soft, nth >= total * soft);
            }
            prop_assert!(enter(&vms, Isolation::Vm, soft, hard, rng.random()).is_none());
            prop_assert!(vms.iter().all(|vm| vm.gate.in_flight() == hard));
        }
    }

    #[test]
    fn equally_busy_goes_to_the_older_and_busier_to_the_other() {
        let vms = vms(2);
        assert_eq!(enter(&vms, Isolation::Vm, 4, 4, 0).unwrap().vm.id, VmId(0));
        assert_eq!(enter(&vms, Isolation::Vm, 4, 4, 0).unwrap().vm.id, VmId(1));
    }

    #[test]
    fn closed_gates_are_passed_over() {
        let vms = vms(3);
        vms[0].gate.close();
        vms[1].gate.close();
        assert_eq!(enter(&vms, Isolation::Vm, 1, 1, 0).unwrap().vm.id, VmId(2));
        assert!(enter(&vms, Isolation::Vm, 1, 1, 0).is_none());
    }

    #[test]
    fn an_isolated_vm_has_room_for_one_and_none_when_dirty() {
        let vms = vms(2);
        let enter = || enter(&vms, Isolation::Request, 1, 1, 0).map(|entered| entered.vm.id);
        assert_eq!([enter(), enter(), enter()], [Some(VmId(0)), Some(VmId(1)), None]);
        vms[1].gate.leave();
        assert_eq!(enter(), None);
        assert!(vms[1].gate.renew());
        assert_eq!(enter(), Some(VmId(1)));
    }
}
