//! What holds for every decision.

use proptest::prelude::*;

use super::*;

fn phases() -> impl Strategy<Value = Phase> {
    prop_oneof![
        1 => Just(Phase::Starting),
        2 => Just(Phase::Ready),
        1 => Just(Phase::Resetting),
        1 => Just(Phase::Draining),
        1 => Just(Phase::Stopping),
    ]
}

fn retries(now: Instant) -> impl Strategy<Value = Retry> {
    prop_oneof![
        4 => Just(Retry::Free),
        1 => Just(Retry::Probe),
        1 => (0..2000u64).prop_map(move |ms| Retry::At(now + MS(ms))),
    ]
}

fn averages() -> impl Strategy<Value = Averages> {
    let number = || prop_oneof![3 => 0..40_000u64, 1 => any::<u64>()];
    (number(), number(), number(), 0..20u32).prop_map(|(stable, panic, peak_demand, peak_live)| Averages {
        stable: Thousandths(stable),
        panic: Thousandths(panic),
        peak_demand: peak_demand / 1000,
        peak_live,
    })
}

/// What else a decision depends on: panic until then, a signal, room, VMs wanted back.
type More = (Averages, Option<u64>, Option<u32>, u32, u32);

fn more() -> impl Strategy<Value = More> {
    let panic = proptest::option::of(0..90_000u64);
    let room = prop_oneof![2 => Just(u32::MAX), 1 => 0..4u32];
    (averages(), panic, proptest::option::of(0..20u32), room, prop_oneof![2 => Just(0), 1 => 0..9u32])
}

fn is_live(vm: &VmView) -> bool {
    matches!(vm.phase, Phase::Starting | Phase::Ready | Phase::Resetting)
}

proptest! {
    #[test]
    fn decisions_keep_every_limit(
        (min, max) in (0..5u32).prop_flat_map(|min| (Just(min), min..9)),
        (soft_limit, down) in (1..5u32, 1001..5000u64),
        queued in 0..40usize,
        shape in proptest::collection::vec((phases(), 0..6u32, any::<bool>(), 0..60_000u64), 0..9),
        retry in retries(Instant::now()),
        after in 0..60_000u64,
        (averages, panic, signal, room, reclaim) in more(),
    ) {
        let base = Instant::now();
        let now = base + MS(after);
        let vms: Vec<_> = (0..).zip(shape).map(|(id, (phase, in_flight, held, since))| {
            // A connection's VM counts as having one request at most.
            let held = held && phase == Phase::Ready;
            let in_flight = if held { in_flight.min(1) } else { in_flight };
            VmView { held, ..vm(id, phase, in_flight, base + MS(since.min(after))) }
        }).collect();
        let limits = Limits { max_down_rate: Thousandths(down), ..limits(min, max, soft_limit) };
        let panic = panic.map(|until| Panic { until: base + MS(until), peak: max });
        let view = View { retry, averages, panic, signal, room, reclaim, ..View::new(&limits, queued, &vms) };
        let decision = decide(&view, now);
        let alive = u32::try_from(vms.len()).unwrap();
        let live = u32::try_from(vms.iter().filter(|vm| is_live(vm)).count()).unwrap();
        let goes = u32::try_from(decision.retire.len() + decision.drain.len()).unwrap();

        prop_assert!((min..=max).contains(&decision.desired));
        prop_assert!(decision.start == 0 || alive + decision.start <= max, "more than max");
        prop_assert!(decision.start <= room, "more than the host has room for");
        prop_assert!(decision.start == 0 || goes == 0, "starts and stops at once");
        prop_assert!(goes == 0 || live - goes >= min, "less than the minimum");
        prop_assert!(live + decision.start <= decision.desired.max(live), "more than wanted");
        if reclaim == 0 {
            let slowest = u64::from(averages.peak_live) * 1000 / down;
            prop_assert!(goes == 0 || live - goes >= decision.desired, "less than wanted");
            prop_assert!(goes == 0 || u64::from(live - goes) >= slowest, "faster than the rate");
            prop_assert!(goes == 0 || decision.panic.is_none(), "in panic");
        }
        for id in &decision.retire {
            let vm = vms.iter().find(|vm| vm.id == *id).unwrap();
            prop_assert!(vm.phase == Phase::Ready && vm.in_flight == 0, "it has a lease");
            prop_assert!(!vm.held || now >= vm.idle_since + IDLE, "a connection has it");
        }
        for id in &decision.drain {
            let vm = vms.iter().find(|vm| vm.id == *id).unwrap();
            prop_assert!(vm.phase == Phase::Ready && vm.in_flight > 0);
        }
        prop_assert!(decision.look_again.is_none_or(|at| at > now), "a busy loop");
        if retry == Retry::Free && alive < max && live < decision.desired && reclaim == 0 && room > 0 {
            prop_assert!(decision.start > 0, "demand is not met though it could be");
        }
        let revoked = revocations(&view, &decision.retire, decision.start, now);
        let ends = |vm: &VmView| revoked.contains(&vm.id) || decision.retire.contains(&vm.id);
        for id in &revoked {
            let vm = vms.iter().find(|vm| vm.id == *id).unwrap();
            prop_assert!(vm.held && vm.in_flight == 0 && !decision.retire.contains(id));
            prop_assert!(now >= vm.idle_since + IDLE || queued > decision.start as usize, "nobody needs it");
        }
        for vm in vms.iter().filter(|vm| vm.held && vm.in_flight == 0) {
            prop_assert!(now < vm.idle_since + IDLE || ends(vm), "held for ever");
            prop_assert!(ends(vm) || decision.look_again.is_some(), "nobody looks for idle connections");
        }
        let surplus_idle = vms.iter().any(|vm| vm.phase == Phase::Ready) && live > min;
        prop_assert!(!surplus_idle || goes > 0 || decision.look_again.is_some(), "nobody looks for idle ones");
    }

    #[test]
    fn garbage_is_decided_on_too(
        (min, max, soft_limit, queued) in any::<(u32, u32, u32, usize)>(),
        (threshold, up, down, window) in any::<(u64, u64, u64, u64)>(),
        (stable, panic, peak_demand, peak_live) in any::<(u64, u64, u64, u32)>(),
        (signal, room, reclaim) in any::<(Option<u32>, u32, u32)>(),
        shape in proptest::collection::vec((phases(), any::<u32>(), any::<bool>()), 0..9),
    ) {
        let now = Instant::now();
        let limits = Limits {
            stable_window: Duration::from_nanos(window),
            panic_window: Duration::from_nanos(window.rotate_left(7)),
            panic_threshold: Thousandths(threshold),
            max_up_rate: Thousandths(up),
            max_down_rate: Thousandths(down),
            ..limits(min, max, soft_limit)
        };
        let vms: Vec<_> =
            (0..).zip(shape).map(|(id, (phase, in_flight, held))| VmView { held, ..vm(id, phase, in_flight, now) }).collect();
        let averages = Averages { stable: Thousandths(stable), panic: Thousandths(panic), peak_demand, peak_live };
        let view = View { averages, signal, room, reclaim, ..View::new(&limits, queued, &vms) };
        let decision = decide(&view, now);
        prop_assert!(decision.desired <= max && decision.start <= room);
        prop_assert!(decision.look_again.is_none_or(|at| at > now));
    }
}
