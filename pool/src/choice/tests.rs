use std::collections::VecDeque;
use std::time::Duration;

use proptest::prelude::*;
use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio::time::Instant;
use weir_vmm::VmId;

use super::*;
use crate::gate::Left;
use crate::signal::NORMAL;

fn ready(count: u64, isolation: Isolation, soft: u32, hard: u32) -> Ready {
    let now = Instant::now();
    let vms = (0..count).map(|id| Arc::new(Vm::undriven(VmId(id), now))).collect();
    let limits = model::Pool { isolation, soft_limit: soft, hard_limit: hard, ..crate::fake::pool("p") };
    Ready::new(vms, &limits)
}

fn shared(count: u64, soft: u32, hard: u32) -> Ready {
    ready(count, Isolation::Vm, soft, hard)
}

fn place(random: u64, count: usize) -> usize {
    usize::try_from(random % count as u64).unwrap()
}

/// Which one is entered, given these random numbers.
fn entered(ready: &Ready, random: u64) -> Option<VmId> {
    ready.enter(random).map(|entered| entered.vm.id)
}

/// As a lease's end.
fn leave(ready: &Ready, vm: &Arc<Vm>) {
    match vm.gate.leave() {
        Left::Open(inside) => ready.made_room(vm, inside),
        left => panic!("{left:?}"),
    }
}

proptest! {
    #[test]
    fn soft_fills_before_hard_and_no_place_is_overlooked(count in 0..6u64, soft in 1..5u32, more in 0..5u32, seed: u64) {
        let hard = soft + more;
        let ready = shared(count, soft, hard);
        let mut rng = StdRng::seed_from_u64(seed);
        let total = u32::try_from(count).unwrap();
        for nth in 0..total * hard {
            let entered = ready.enter(rng.random()).unwrap();
            prop_assert_eq!(entered.above_soft, nth >= total * soft);
        }
        prop_assert!(ready.enter(rng.random()).is_none());
        prop_assert!(ready.enter_any(hard, rng.random()).is_none());
        prop_assert!(ready.iter().all(|vm| vm.gate.in_flight() == hard));
    }

    /// Whoever comes and goes, closed VMs among them: there is a place exactly where the gates have one.
    #[test]
    fn what_it_knows_of_room_stays_true(
        count in 1..200u64,
        (soft, more) in (1..4u32, 0..3u32),
        steps in proptest::collection::vec((0..8u8, any::<u64>()), 0..800),
    ) {
        let hard = soft + more;
        let ready = shared(count, soft, hard);
        let mut inside = Vec::new();
        for (step, random) in steps {
            let has = |limit| ready.iter().any(|vm| vm.gate.has_room(limit));
            let (has_soft, has_hard) = (has(soft), has(hard));
            match step {
                0..5 => {
                    let entered = ready.enter(random);
                    prop_assert_eq!(entered.as_ref().is_some_and(|entered| !entered.above_soft), has_soft);
                    prop_assert_eq!(entered.is_some(), has_hard);
                    inside.extend(entered.map(|entered| entered.vm.clone()));
                }
                5 => {
                    let entered = ready.enter_any(soft, random);
                    prop_assert_eq!(entered.is_some(), has_soft);
                    inside.extend(entered.cloned());
                }
                6 if !inside.is_empty() => {
                    let vm = inside.swap_remove(place(random, inside.len()));
                    if vm.gate.has_room(u32::MAX) {
                        leave(&ready, &vm);
                    }
                }
                _ => {
                    let vm = &ready[place(random, ready.len())];
                    if random.is_multiple_of(16) {
                        vm.gate.close();
                    }
                }
            }
        }
    }
}

/// Many requests, one after the other, each of which stays for a while; how many each VM got.
fn spread(ready: &Ready, requests: usize, at_once: usize) -> Vec<usize> {
    let mut rng = StdRng::seed_from_u64(4);
    let (mut inside, mut counts) = (VecDeque::new(), vec![0; ready.len()]);
    for _ in 0..requests {
        if inside.len() == at_once {
            leave(ready, &inside.pop_front().unwrap());
        }
        let vm = ready.enter(rng.random()).unwrap().vm.clone();
        counts[usize::try_from(vm.id.0).unwrap()] += 1;
        inside.push_back(vm);
    }
    counts
}

#[test]
fn requests_are_spread_by_weight() {
    let ready = shared(2, 100, 100);
    ready[0].weight.store(3 * NORMAL, Relaxed);
    let counts = spread(&ready, 10_000, 80);
    assert!((2.8..3.2).contains(&(counts[0] as f64 / counts[1] as f64)), "{counts:?}");
}

#[test]
fn a_clearly_slower_vm_gets_fewer_requests_and_not_none() {
    let ready = shared(4, 100, 100);
    for (vm, micros) in ready.iter().zip([1000, 1900, 1000, 50_000]) {
        vm.latency.observe(Duration::from_micros(micros));
    }
    let counts = spread(&ready, 200, 40);
    assert!(counts[3] < 10 && counts[..3].iter().all(|count| *count > 50), "{counts:?}");
    // It answers no more, so it is forgotten in the end.
    let counts = spread(&ready, 20_000, 40);
    assert!(counts[3] > 3_000, "{counts:?}");
}

#[test]
fn equally_busy_goes_to_the_older_and_busier_to_the_other() {
    let ready = shared(2, 4, 4);
    assert_eq!([entered(&ready, 0), entered(&ready, 0)], [Some(VmId(0)), Some(VmId(1))]);
}

#[test]
fn closed_gates_are_passed_over() {
    let ready = shared(3, 1, 1);
    ready[0].gate.close();
    ready[1].gate.close();
    assert_eq!([entered(&ready, 0), entered(&ready, 0)], [Some(VmId(2)), None]);
}

#[test]
fn an_isolated_vm_has_room_for_one_and_none_when_dirty() {
    let ready = ready(2, Isolation::Request, 1, 1);
    let enter = || entered(&ready, 0);
    assert_eq!([enter(), enter(), enter()], [Some(VmId(0)), Some(VmId(1)), None]);
    ready[1].gate.leave();
    assert_eq!(enter(), None);
    assert!(ready[1].gate.renew());
    ready.made_room(&ready[1], 0);
    assert_eq!(enter(), Some(VmId(1)));
}
