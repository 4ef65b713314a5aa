use proptest::prelude::*;

use super::super::tests::{limits, vm};
use super::super::{View, decide};
use super::*;

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn kept(idle_timeout: u64, keep_last: u64) -> Limits {
    Limits { idle_timeout: seconds(idle_timeout), keep_last: seconds(keep_last), ..limits(0, 4, 2) }
}

/// How long the last VM may be idle after each of these pauses between requests that take no time.
fn after(limits: &Limits, pauses: &[u64]) -> Vec<u64> {
    let (mut keep_alive, mut now) = (KeepAlive::default(), Instant::now());
    keep_alive.observe(limits, 1, &[], now);
    let mut observe = |pause: &u64| {
        now += seconds(*pause);
        keep_alive.observe(limits, 1, &[], now).as_secs()
    };
    pauses.iter().map(&mut observe).collect()
}

#[test]
fn who_comes_back_after_the_timeout_has_the_last_vm_kept_longer_and_who_does_not_ends_it() {
    let limits = kept(30, 300);
    // The first payment is no more than a proof; the second is 150 s, less the two times 10 s that they cost.
    assert_eq!(after(&limits, &[40, 1, 40, 40]), [30, 30, 30 + 130, 30 + 270]);
    assert_eq!(after(&limits, &[40, 40, 40, 40, 40])[4], 300, "not beyond the limit");
    assert_eq!(after(&limits, &[40, 40, 40, 1000]), [30, 160, 300, 30 + 270 - 270]);
    assert_eq!(after(&limits, &[1, 29, 30, 1, 30]), [30; 5], "the timeout is enough");
    assert_eq!(after(&limits, &[301, 1000, 5000]), [30; 3]);
    assert_eq!(after(&kept(30, 30), &[31, 40, 1, 40]), [30; 4], "nobody asked for it");
}

#[test]
fn a_request_to_a_warm_vm_is_seen_by_what_it_leaves_behind() {
    let (limits, begin) = (kept(30, 300), Instant::now());
    let mut keep_alive = KeepAlive::default();
    let mut look = |used_until: u64, at: u64| {
        let vms = [vm(1, Phase::Ready, 0, begin + seconds(used_until))];
        keep_alive.observe(&limits, 0, &vms, begin + seconds(at)).as_secs()
    };
    assert_eq!(
        [look(0, 0), look(40, 60), look(40, 70), look(80, 90), look(80, 1000)],
        [30, 30, 30, 160, 160]
    );
}

#[test]
fn only_the_last_vm_stays_and_only_where_all_are_idle() {
    let (limits, begin) = (kept(30, 300), Instant::now());
    let idle = |id, since| vm(id, Phase::Ready, 0, begin + seconds(since));
    let at = |vms: &[VmView], keep, time| {
        decide(&View { keep: seconds(keep), ..View::new(&limits, 0, vms) }, begin + seconds(time))
    };
    let three = [idle(1, 1), idle(2, 0), idle(3, 1)];
    let first = at(&three, 100, 31);
    assert_eq!(first.retire.iter().map(|id| id.0).collect::<Vec<_>>(), [2, 3]);
    let last = at(&three[..1], 100, 31);
    assert_eq!(
        (last.retire.len(), last.look_again),
        (0, Some(begin + seconds(61))),
        "requests are no events"
    );
    assert_eq!(at(&three[..1], 100, 75).look_again, Some(begin + seconds(101)));
    assert_eq!(at(&three[..1], 100, 101).retire.len(), 1);
    assert_eq!(at(&three[..1], 5000, 301).retire.len(), 1, "never beyond the limit");
    assert_eq!(at(&three[..1], 0, 31).retire.len(), 1);
    let busy = vm(4, Phase::Ready, 1, begin);
    assert_eq!(at(&[three[0], busy], 100, 31).retire.len(), 1, "another one serves");
}

proptest! {
    #[test]
    fn it_is_within_its_bounds_and_costs_what_was_paid_for(
        (idle_timeout, more) in (0..60u64, 0..600u64),
        pauses in proptest::collection::vec(0..900u64, 1..200),
    ) {
        let limits = kept(idle_timeout, idle_timeout + more);
        let kept = after(&limits, &pauses);
        prop_assert!(kept.iter().all(|keep| (idle_timeout..=idle_timeout + more).contains(keep)));
        let back = pauses.iter().filter(|pause| (idle_timeout + 1..=idle_timeout + more).contains(pause)).count();
        // The pause after the one that a time was learned from is what it holds for.
        let longer = kept.iter().zip(&pauses[1..]).map(|(keep, pause)| (*keep).min(*pause).saturating_sub(idle_timeout));
        prop_assert!(longer.sum::<u64>() <= back as u64 * (idle_timeout + more).div_ceil(2));
    }

    #[test]
    fn who_may_be_kept_for_longer_is(idle_timeout in 1..60u64, longer in 0..600u64, more in 0..600u64, nth in 1..20usize) {
        // As long as all come back within the lesser limit.
        let back = vec![idle_timeout + longer / 4; nth];
        let of = |keep_last| after(&kept(idle_timeout, idle_timeout + keep_last), &back)[nth - 1];
        prop_assert!(of(longer) <= of(longer + more));
    }

    #[test]
    fn it_holds_back_no_more_than_the_vm_that_was_used_last_and_not_beyond_its_limit(
        (min, more) in (0..3u32, 0..600u64),
        shape in proptest::collection::vec((0..3u32, any::<bool>(), 0..90u64), 0..6),
        (keep, after) in (0..900u64, 0..900u64),
    ) {
        let (limits, begin) = (Limits { min, ..kept(30, 30 + more) }, Instant::now());
        let since = |since: u64| begin + seconds(since.min(after));
        let vms: Vec<_> = (0..).zip(shape).map(|(id, (in_flight, held, used))| VmView {
            held,
            ..vm(id, Phase::Ready, if held { in_flight.min(1) } else { in_flight }, since(used))
        }).collect();
        let of = |keep| decide(&View { keep: seconds(keep), ..View::new(&limits, 0, &vms) }, begin + seconds(after));
        let (without, with) = (of(0), of(keep));
        let stays: Vec<_> = without.retire.iter().filter(|id| !with.retire.contains(id)).collect();
        prop_assert!(with.retire.iter().all(|id| without.retire.contains(id)) && stays.len() <= 1);
        for id in stays {
            let last = vms.iter().map(|vm| vm.idle_since).max();
            let vm = vms.iter().find(|vm| vm.id == *id).unwrap();
            prop_assert!(Some(vm.idle_since) == last && !vm.held && vms.iter().all(|vm| vm.in_flight == 0));
            prop_assert!(begin + seconds(after) < vm.idle_since + seconds(keep.min(30 + more)));
            prop_assert!(with.look_again.is_some_and(|at| at <= vm.idle_since + seconds(keep)));
        }
    }

    #[test]
    fn at_regular_requests_it_does_not_change_its_mind(idle_timeout in 1..60u64, more in 0..600u64, pause in 1..900u64) {
        let kept = after(&kept(idle_timeout, idle_timeout + more), &[pause; 500]);
        prop_assert!(kept.is_sorted() || kept.iter().rev().is_sorted(), "{kept:?}");
        prop_assert!(kept[499] == idle_timeout || pause <= idle_timeout + more, "kept for nobody");
    }

    #[test]
    fn garbage_is_learned_from_too(idle_timeout: u64, keep_last: u64, looks in proptest::collection::vec((0..3u64, 0..1u64 << 40, 0..1u64 << 40), 0..50)) {
        let (limits, begin) = (kept(idle_timeout, keep_last), Instant::now());
        let mut keep_alive = KeepAlive::default();
        for (demand, used_until, at) in looks {
            let vms = [vm(1, Phase::Ready, 0, begin + Duration::from_nanos(used_until))];
            let keep = keep_alive.observe(&limits, demand, &vms, begin + Duration::from_nanos(at));
            prop_assert!(keep >= limits.idle_timeout && keep <= limits.keep_last.max(limits.idle_timeout));
        }
    }
}
