//! What the past does to decisions.

use super::*;

/// A pool as [`limits`] makes it, but with the usual `max_down_rate`.
fn slow(min: u32, max: u32, soft_limit: u32) -> Limits {
    Limits { max_down_rate: Thousandths(2000), ..limits(min, max, soft_limit) }
}

fn ready(count: u64, in_flight: u32, since: Instant) -> Vec<VmView> {
    (1..=count).map(|id| vm(id, Phase::Ready, in_flight, since)).collect()
}

fn averages(stable: u64, panic: u64, peak_demand: u64, peak_live: u32) -> Averages {
    let [stable, panic] = [stable, panic].map(|requests| Thousandths(requests * 1000));
    Averages { stable, panic, peak_demand, peak_live }
}

#[test]
fn sudden_demand_is_panic_and_keeps_everything_for_a_stable_window() {
    let now = Instant::now();
    let limits = limits(0, 9, 1);
    let vms = ready(2, 0, now);
    let at = |panic, average, time| {
        let view = View { averages: averages(0, average, average, 2), panic, ..View::new(&limits, 0, &vms) };
        decide(&view, time)
    };
    let calm = at(None, 3, now);
    assert_eq!((calm.panic, calm.desired), (None, 0), "less than twice what two VMs are for");
    let sudden = at(None, 4, now);
    let panic = Panic { until: now + limits.stable_window, peak: 4 };
    assert_eq!((sudden.panic, sudden.desired, sudden.start), (Some(panic), 4, 2));
    let later = now + limits.stable_window - MS(1);
    let held = at(Some(panic), 0, later);
    assert_eq!((held.panic, held.desired), (Some(panic), 4), "what was lost is replaced");
    assert_eq!(at(Some(panic), 4, later).panic.unwrap().until, later + limits.stable_window);
    assert_eq!(at(Some(panic), 0, later + MS(1)).panic, None);
    let many = ready(8, 0, now);
    let idle = View { panic: Some(panic), ..View::new(&limits, 0, &many) };
    assert_eq!(decide(&idle, now + IDLE * 9).retire.len(), 8, "the panic is over");
    let panic = Panic { until: now + IDLE * 10, ..panic };
    assert_eq!(decide(&View { panic: Some(panic), ..idle }, now + IDLE * 9).retire, []);
}

#[test]
fn a_moment_above_the_soft_limit_starts_nothing_but_its_average_and_who_waits_do() {
    let now = Instant::now();
    let limits = Limits { hard_limit: 4, ..limits(0, 9, 2) };
    let desired = |in_flight, queued, stable, panic| {
        let vms = ready(2, in_flight, now);
        let view = View { averages: averages(stable, panic, 0, 0), ..View::new(&limits, queued, &vms) };
        decide(&view, now).desired
    };
    assert_eq!([desired(2, 0, 4, 4), desired(4, 0, 4, 4), desired(3, 2, 4, 4)], [2, 2, 2]);
    assert_eq!(
        [desired(4, 1, 4, 4), desired(4, 3, 4, 4), desired(3, 3, 4, 4)],
        [3, 4, 3],
        "who finds no place"
    );
    assert_eq!(
        [desired(3, 0, 5, 4), desired(3, 0, 4, 5), desired(0, 0, 5, 5)],
        [3, 3, 0],
        "on average, if at all"
    );
}

#[test]
fn what_the_averages_do_not_fill_goes_after_a_moment() {
    let now = Instant::now();
    let limits = limits(0, 9, 2);
    let moment = limits.panic_window / 15;
    let retired = |stable, panic, after| {
        let mut vms = ready(4, 0, now);
        vms[0].in_flight = 1;
        // The surplus that all of the last panic window has, idle or not, is another matter.
        let view = View { averages: averages(stable, panic, 8, 0), ..View::new(&limits, 0, &vms) };
        decide(&view, now + after).retire.len()
    };
    assert_eq!([retired(4, 1, moment), retired(4, 1, moment - MS(1))], [2, 0]);
    assert_eq!([retired(1, 5, moment), retired(7, 1, moment), retired(1, 0, moment)], [1, 0, 0]);
}

#[test]
fn the_first_vm_comes_whatever_the_rates_and_averages_say() {
    let limits = Limits { max_up_rate: Thousandths(1001), ..limits(0, 9, 1) };
    assert_eq!(decide(&View::new(&limits, 1, &[]), Instant::now()).start, 1);
}

#[test]
fn one_decision_multiplies_the_ready_vms_by_the_rate_and_may_add_one_in_any_case() {
    let now = Instant::now();
    let wants = |rate, ready_vms| {
        let limits = Limits { max_up_rate: Thousandths(rate), ..limits(0, 99, 1) };
        decide(&View::new(&limits, 99, &ready(ready_vms, 0, now)), now).desired
    };
    assert_eq!([wants(2000, 0), wants(2000, 1), wants(2000, 3), wants(2000, 90)], [2, 2, 6, 99]);
    assert_eq!([wants(1001, 0), wants(1001, 4), wants(1500, 5)], [2, 5, 8]);
    let slow = Limits { max_up_rate: Thousandths(1001), ..limits(7, 9, 1) };
    assert_eq!(decide(&View::new(&slow, 0, &[]), now).start, 7, "a minimum is no growth");
}

#[test]
fn within_a_panic_window_the_number_is_divided_by_the_rate_at_most() {
    let now = Instant::now();
    let limits = slow(0, 9, 1);
    let left = |live: u64, peak| {
        let vms = ready(live, 0, now);
        let view = View { averages: averages(0, 0, 0, peak), ..View::new(&limits, 0, &vms) };
        let decision = decide(&view, now + IDLE);
        assert!(decision.look_again.is_some() || decision.retire.len() == vms.len());
        vms.len() - decision.retire.len()
    };
    assert_eq!([left(9, 9), left(4, 9), left(4, 4), left(3, 3), left(1, 1)], [4, 4, 2, 1, 0]);
}

#[test]
fn what_the_stable_average_fills_stays_however_idle() {
    let now = Instant::now();
    let limits = limits(0, 9, 2);
    let vms = ready(4, 0, now);
    let retired = |stable| {
        let view = View { averages: averages(stable, 0, 0, 4), ..View::new(&limits, 0, &vms) };
        decide(&view, now + IDLE).retire.len()
    };
    assert_eq!([retired(9), retired(8), retired(7), retired(4)], [0, 0, 1, 2]);
}

#[test]
fn what_neither_window_needs_goes_though_it_is_used() {
    let now = Instant::now();
    let limits = limits(0, 99, 4);
    let retired = |stable, peak_demand, vms: &[VmView]| {
        let average = averages(stable, stable.min(1), peak_demand, 0);
        let view = View { averages: average, ..View::new(&limits, 0, vms) };
        let decision = decide(&view, now);
        (decision.retire.len(), decision.drain)
    };
    let used = ready(8, 0, now);
    assert_eq!(retired(8, 8, &used), (5, vec![]), "8 requests fill four fifths of 3 VMs");
    assert_eq!(retired(8, 24, &used), (2, vec![]), "there were 24 a moment ago");
    assert_eq!(retired(0, 0, &used), (0, vec![]), "all are idle: their timeout counts");
    assert_eq!(
        retired(8, 8, &ready(8, 1, now)),
        (0, vec![VmId(8)]),
        "busy ones drain, one in eight at a time"
    );
    let mut draining = ready(16, 1, now);
    draining[3].phase = Phase::Draining;
    assert_eq!(retired(16, 16, &draining), (0, vec![]), "one is draining");
    let isolated = Limits { isolation: Isolation::Request, ..limits.clone() };
    let view = View { averages: averages(8, 1, 8, 0), ..View::new(&isolated, 0, &draining) };
    assert_eq!(decide(&view, now).drain, []);
    let silence = View { averages: averages(8, 0, 0, 0), ..View::new(&limits, 0, &used) };
    assert_eq!(decide(&silence, now).retire, [], "after a burst, too, their timeout counts");
}

#[test]
fn what_others_wait_for_goes_at_once_down_to_the_minimum() {
    let now = Instant::now();
    let limits = slow(2, 9, 1);
    let vms = [ready(4, 0, now), vec![held(5, 0, now), vm(6, Phase::Ready, 1, now)]].concat();
    let told = |reclaim, panic| {
        let view = View { reclaim, room: 0, panic, ..View::new(&limits, 9, &vms) };
        let decision = decide(&view, now);
        assert_eq!(decision.start, 0);
        (decision.retire.len(), decision.drain, decision.look_again)
    };
    let panic = Some(Panic { until: now + IDLE, peak: 9 });
    let soon = Some(now + retire::RECLAIM_TICK);
    assert_eq!((told(1, None).0, told(3, panic).0), (1, 3));
    let (retired, drained, look_again) = told(9, None);
    assert_eq!((retired, drained), (4, vec![]), "below the minimum nothing goes");
    assert_ne!(look_again, soon);
    let limits = Limits { min: 0, ..limits };
    let view = View { reclaim: 9, ..View::new(&limits, 0, &vms) };
    let decision = decide(&view, now);
    assert_eq!((decision.retire.len(), decision.drain, decision.look_again), (4, vec![VmId(6)], soon));
}

#[test]
fn without_room_nothing_starts_and_that_is_told() {
    let limits = limits(0, 9, 1);
    let view = View { room: 2, ..View::new(&limits, 5, &[]) };
    let decision = decide(&view, Instant::now());
    assert_eq!((decision.desired, decision.start, decision.short), (5, 2, 3));
}

#[test]
fn a_signal_is_demand_that_no_lie_takes_above_max() {
    let limits = limits(1, 9, 4);
    let desired = |signal| decide(&View { signal, ..View::new(&limits, 8, &[]) }, Instant::now()).desired;
    assert_eq!([None, Some(0), Some(5), Some(u32::MAX)].map(desired), [2, 2, 5, 9]);
}
