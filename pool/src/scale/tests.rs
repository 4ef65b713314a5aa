mod closed_loop;
mod history;
mod properties;

use weir_config::model::{Isolation, Pool, Scale, Thousandths};

use super::*;
use crate::fake;

const MS: fn(u64) -> Duration = Duration::from_millis;
const IDLE: Duration = Duration::from_secs(30);

pub(super) fn limits(min: u32, max: u32, soft_limit: u32) -> Limits {
    let scale =
        Scale { min, max, idle_timeout: IDLE, max_down_rate: Thousandths(1_000_000), ..Scale::default() };
    Limits::of(&Pool { soft_limit, hard_limit: soft_limit, scale, ..fake::pool("p") })
}

pub(super) fn vm(id: u64, phase: Phase, in_flight: u32, idle_since: Instant) -> VmView {
    VmView { id: VmId(id), phase, in_flight, held: false, idle_since }
}

fn held(id: u64, in_flight: u32, idle_since: Instant) -> VmView {
    VmView { held: true, ..vm(id, Phase::Ready, in_flight, idle_since) }
}

#[test]
fn from_zero_as_many_start_at_once_as_demand_needs() {
    let now = Instant::now();
    let start = |queued| decide(&View::new(&limits(0, 4, 2), queued, &[]), now).start;
    assert_eq!([0, 1, 2, 3, 8, 9, usize::MAX].map(start), [0, 1, 1, 2, 4, 4, 4]);
    assert_eq!(decide(&View::new(&limits(2, 4, 2), 0, &[]), now).start, 2);
}

#[test]
fn in_flight_counts_only_where_requests_still_go() {
    let now = Instant::now();
    let vms = [vm(1, Phase::Ready, 2, now), vm(2, Phase::Draining, 9, now), vm(3, Phase::Stopping, 0, now)];
    let decision = decide(&View::new(&limits(0, 8, 2), 1, &vms), now);
    assert_eq!((decision.desired, decision.start), (2, 1));
    assert_eq!(decide(&View::new(&limits(0, 3, 2), 1, &vms), now).start, 0, "three processes exist");
}

#[test]
fn idle_vm_goes_exactly_at_its_timeout_and_the_longest_idle_first() {
    let now = Instant::now();
    let vms = [vm(1, Phase::Ready, 0, now + MS(2)), vm(2, Phase::Ready, 0, now), vm(3, Phase::Ready, 0, now)];
    let at = |limits, time| decide(&View::new(&limits, 0, &vms), time);
    let early = at(limits(0, 4, 2), now + IDLE - MS(1));
    assert_eq!((early.retire, early.look_again), (vec![], Some(now + IDLE)));
    let due = at(limits(0, 4, 2), now + IDLE);
    assert_eq!((due.retire, due.look_again), (vec![VmId(3), VmId(2)], Some(now + IDLE + MS(2))));
    assert_eq!(at(limits(2, 4, 2), now + IDLE + MS(2)).retire, [VmId(3)]);
    assert_eq!(at(limits(3, 4, 2), now + IDLE).look_again, None, "all are kept: nothing to look for");
}

#[test]
fn wanted_vms_stay_and_busy_ones_are_looked_at_again() {
    let now = Instant::now();
    let busy = [vm(1, Phase::Ready, 1, now), vm(2, Phase::Ready, 0, now)];
    let later = now + IDLE + MS(5);
    let decision = decide(&View::new(&limits(0, 4, 1), 1, &busy), later);
    assert_eq!((decision.start, decision.retire), (0, vec![]), "idle, but demand wants two");
    assert_eq!(decision.look_again, Some(later + MS(100)));
    let decision = decide(&View::new(&limits(0, 4, 1), 0, &busy), later);
    assert_eq!((decision.retire, decision.look_again), (vec![VmId(2)], Some(later + MS(100))));
}

#[test]
fn failures_hold_starts_back() {
    let now = Instant::now();
    let start = |retry, vms: &[VmView]| {
        let decision = decide(&View { retry, ..View::new(&limits(0, 4, 1), 3, vms) }, now);
        (decision.start, decision.look_again)
    };
    assert_eq!(start(Retry::At(now + MS(1)), &[]), (0, Some(now + MS(1))));
    let sample = Some(now + MS(100));
    assert_eq!(start(Retry::At(now), &[]), (1, sample));
    assert_eq!(start(Retry::Probe, &[]), (1, sample));
    assert_eq!(start(Retry::Probe, &[vm(1, Phase::Starting, 0, now)]), (0, sample));
}

#[test]
fn a_vm_being_reset_is_there_but_not_idle() {
    let now = Instant::now();
    let vms = [vm(1, Phase::Resetting, 0, now), vm(2, Phase::Ready, 1, now)];
    let later = now + IDLE + MS(1);
    let decision = decide(&View::new(&limits(0, 4, 1), 1, &vms), later);
    assert_eq!((decision.desired, decision.start), (2, 0));
    let decision = decide(&View::new(&limits(0, 4, 1), 0, &vms[..1]), later);
    assert_eq!((decision.retire, decision.look_again), (vec![], Some(later + IDLE)));
}

#[test]
fn a_connection_s_vm_is_taken_until_it_has_been_idle_for_the_timeout() {
    let now = Instant::now();
    let vms = [held(1, 0, now), held(2, 1, now)];
    let at = |min, queued, time| decide(&View::new(&limits(min, 4, 1), queued, &vms), time);
    let early = at(0, 1, now + IDLE - MS(1));
    assert_eq!((early.desired, early.start, early.retire), (3, 1, vec![]));
    assert_eq!(early.look_again, Some(now + IDLE));
    assert_eq!(at(0, 0, now + IDLE).retire, [VmId(1)]);
    let kept = at(2, 0, now + IDLE);
    assert_eq!((kept.desired, kept.retire), (2, vec![]));
    let ended =
        |min, retired: &[VmId]| revocations(&View::new(&limits(min, 4, 1), 0, &vms), retired, 0, now + IDLE);
    assert_eq!((ended(2, &[]), ended(0, &[VmId(1)])), (vec![VmId(1)], vec![]));
    assert_eq!(at(4, 0, now).look_again, Some(now + IDLE), "though the pool is as small as it may be");
    let limits = Limits { isolation: Isolation::Connection, ..limits(1, 4, 1) };
    let decision = decide(&View::new(&limits, 0, &[vm(1, Phase::Ready, 0, now)]), now);
    assert_eq!(decision.look_again, Some(now + IDLE), "a connection may take it without a word");
}

#[test]
fn idle_connections_make_way_for_those_who_wait_and_only_then_the_longest_idle_first() {
    let now = Instant::now();
    let vms = [held(1, 0, now + MS(3)), held(2, 0, now + MS(1)), held(3, 0, now + MS(2)), held(4, 1, now)];
    let ended = |queued, vms: &[VmView], started| {
        revocations(&View::new(&limits(0, 4, 1), queued, vms), &[], started, now + MS(9))
    };
    assert_eq!(ended(0, &vms, 0), []);
    assert_eq!(ended(1, &vms, 0), [VmId(2)]);
    assert_eq!(ended(9, &vms, 0), [VmId(2), VmId(3), VmId(1)]);
    assert_eq!(ended(2, &vms, 1), [VmId(2)], "one of the two gets what has been started");
    let coming =
        [vm(5, Phase::Starting, 0, now), vm(6, Phase::Resetting, 0, now), vm(7, Phase::Ready, 0, now)];
    let with_coming = [&vms[..], &coming].concat();
    assert_eq!((ended(3, &with_coming, 0), ended(4, &with_coming, 0)), (vec![], vec![VmId(2)]));
}
