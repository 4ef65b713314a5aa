use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
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

proptest! {
    /// As a list sorted by rank would have it: the highest that is open and not full.
    #[test]
    fn the_highest_rank_with_room_is_entered(
        ranks in proptest::collection::vec(proptest::option::of(0..50u64), 0..8),
        closed in 0..8usize,
        hard in 1..4u32,
        requests in 0..40usize,
    ) {
        let ready = shared(ranks.len() as u64, hard, hard);
        if let Some(vm) = ready.get(closed) {
            vm.gate.close();
        }
        let mut left: Vec<_> = ranks.iter().map(|_| hard).collect();
        if let Some(left) = left.get_mut(closed) {
            *left = 0;
        }
        let rank = |member| match member {
            Member::Vm(VmId(id)) => ranks[usize::try_from(id).unwrap()],
            Member::Server(_) => unreachable!("there are VMs only"),
        };
        for _ in 0..requests {
            let expected = (0..ranks.len()).filter(|vm| left[*vm] > 0).filter_map(|vm| ranks[vm]).max();
            let entered = ready.enter_ranked(rank).map(|vm| usize::try_from(vm.id.0).unwrap());
            prop_assert_eq!(entered.and_then(|vm| ranks[vm]), expected);
            if let Some(entered) = entered {
                prop_assert!(left[entered] > 0);
                left[entered] -= 1;
            }
        }
    }
}

#[test]
fn isolated_vms_have_no_rank() {
    let ready = ready(2, Isolation::Request, 1, 1);
    assert!(ready.enter_ranked(|_| Some(1)).is_none());
    assert_eq!(entered(&ready, 0), Some(VmId(0)));
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

/// Requests that come at random to VMs which serve them one after the other, some more slowly than others: the mean and
/// the 99th percentile of the times to their answers, in milliseconds. `work` of a request is in milliseconds of the
/// quickest VM.
fn answer_times(slowness: &[f64], per_ms: f64, work: impl Fn(f64) -> f64, measured: bool) -> (f64, f64) {
    let ready = shared(slowness.len() as u64, u32::MAX, u32::MAX);
    let mut rng = StdRng::seed_from_u64(7);
    let (mut now, mut free_at) = (0.0, vec![0.0_f64; slowness.len()]);
    let mut inside = BinaryHeap::new();
    let mut times = Vec::new();
    for _ in 0..20_000 {
        now -= rng.random_range(f64::EPSILON..1.0).ln() / per_ms;
        while let Some((Reverse(end), vm, took)) = inside.pop() {
            if f64::from_bits(end) > now {
                inside.push((Reverse(end), vm, took));
                break;
            }
            let vm: &Arc<Vm> = &ready[vm];
            if measured {
                vm.latency.observe(Duration::from_secs_f64(f64::from_bits(took) / 1e3));
            }
            leave(&ready, vm);
        }
        let vm = ready.enter(rng.random()).unwrap().vm.position.load(Relaxed) as usize;
        let end = free_at[vm].max(now) + work(rng.random()) * slowness[vm];
        free_at[vm] = end;
        times.push(end - now);
        // Times are not negative, so their bits are in their order.
        inside.push((Reverse(end.to_bits()), vm, (end - now).to_bits()));
    }
    times.sort_by(f64::total_cmp);
    (times.iter().sum::<f64>() / times.len() as f64, times[times.len() * 99 / 100])
}

#[test]
fn latency_helps_where_a_vm_is_slow_and_does_no_harm_where_requests_differ() {
    let even = |_| 1.0;
    // One request in twenty takes twenty times as long.
    let uneven = |random: f64| if random < 0.05 { 20.0 } else { 1.0 };
    let one_slow = [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 20.0];
    let alike = [1.0; 8];
    let compare = |what: String, slowness: &[f64], per_ms, work: &dyn Fn(f64) -> f64| {
        let [(mean, p99), (measured_mean, measured_p99)] =
            [false, true].map(|measured| answer_times(slowness, per_ms, work, measured));
        println!("{what}: mean {mean:.2} -> {measured_mean:.2} ms, p99 {p99:.1} -> {measured_p99:.1} ms");
        (measured_mean / mean, measured_p99 / p99)
    };
    for per_ms in [1.0, 3.0, 5.0] {
        let (mean, p99) = compare(format!("one slow VM, {per_ms}/ms"), &one_slow, per_ms, &even);
        assert!(mean < 0.9 && p99 < 0.25, "{mean} {p99}");
    }
    for per_ms in [1.0, 2.0, 3.0] {
        let (mean, p99) = compare(format!("uneven requests, {per_ms}/ms"), &alike, per_ms, &uneven);
        assert!(mean < 1.15 && p99 < 1.15, "{mean} {p99}");
    }
}
