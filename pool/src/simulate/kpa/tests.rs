use super::*;
use crate::fake;

/// Knative's defaults for a soft limit of 10: 7 requests per pod are aimed at.
fn kpa(begin: Instant) -> Kpa {
    let mut pool = fake::pool("p");
    (pool.soft_limit, pool.scale.max) = (10, 50);
    Kpa::new(Rules::defaults(&pool), begin)
}

/// Pods that are all ready.
fn ready(count: u64, now: Instant) -> Vec<VmView> {
    let pod = |id| VmView { id: VmId(id), phase: Phase::Ready, in_flight: 0, held: false, idle_since: now };
    (0..count).map(pod).collect()
}

/// What is wanted at `now` with so many pods ready.
fn desired(kpa: &mut Kpa, pods: u64, queued: usize, now: Instant) -> u32 {
    kpa.decide(&Seen { vms: &ready(pods, now), queued }, now);
    kpa.desired
}

#[test]
fn a_step_is_followed_by_hand() {
    let begin = Instant::now();
    let at = |seconds| begin + Duration::from_secs(seconds);
    let mut kpa = kpa(begin);
    // The first request to a pool at zero is decided upon at once: ceil(1 / 7).
    kpa.demand(1, at(1));
    assert_eq!(desired(&mut kpa, 0, 1, at(1)), 1);
    assert_eq!(desired(&mut kpa, 1, 0, at(2)), 1);
    // 42 from second 3 on. At 4 s both averages are over 3 s: (1 * 2 + 42) / 3 = 14.7, so 3 pods of 7 each, and 3 / 1 is
    // over the threshold of 2.
    kpa.demand(42, at(3));
    assert_eq!(desired(&mut kpa, 1, 0, at(4)), 3);
    assert!(kpa.panicking.is_some());
    // Between two ticks nothing is decided. At 6 s: (2 + 42 * 3) / 5 = 25.6; at 10 s the panic window is full: 42.
    assert_eq!(desired(&mut kpa, 3, 0, at(5)), 3);
    assert_eq!(desired(&mut kpa, 3, 0, at(6)), 4);
    assert_eq!(desired(&mut kpa, 4, 0, at(10)), 6);
    // It falls to 7 at 12 s. The threshold was last reached at 4 s (6 / 4 is not 2), so panic ends after 64 s, in which
    // the number does not fall; then the stable window counts, of which 8 s had 42: (42 * 6 + 7 * 54) / 60 = 10.5.
    kpa.demand(7, at(12));
    assert_eq!(desired(&mut kpa, 6, 0, at(64)), 6);
    assert!(kpa.panicking.is_some());
    // ceil(10.5 / 7) = 2, but no less than half of the 6 at once. (42 * 6 + 7 * 54) is the window from 6 to 66 s.
    assert_eq!(desired(&mut kpa, 6, 0, at(66)), 3);
    assert!(kpa.panicking.is_none());
    assert_eq!(desired(&mut kpa, 3, 0, at(68)), 2);
}

#[test]
fn zero_is_reached_after_the_stable_window_and_the_grace_period() {
    let begin = Instant::now();
    let at = |seconds| begin + Duration::from_secs(seconds);
    let mut kpa = kpa(begin);
    kpa.demand(20, at(0));
    assert_eq!(desired(&mut kpa, 0, 20, at(0)), 3);
    kpa.demand(0, at(1));
    // Something was in flight within the last minute until 60 s; panic (3 / 1) lasted until then.
    assert_eq!(desired(&mut kpa, 3, 0, at(60)), 3);
    // The average is 0, but the number is halved at most.
    assert_eq!(desired(&mut kpa, 3, 0, at(62)), 1);
    assert_eq!(desired(&mut kpa, 1, 0, at(64)), 1, "zero is wanted, and the last pod has its grace");
    assert_eq!(desired(&mut kpa, 1, 0, at(92)), 1);
    assert_eq!(desired(&mut kpa, 1, 0, at(94)), 0);
    // After silence the average begins anew.
    kpa.demand(8, at(300));
    assert_eq!(desired(&mut kpa, 0, 8, at(300)), 2);
}

#[test]
fn a_request_within_the_grace_period_ends_it() {
    let begin = Instant::now();
    let at = |seconds| begin + Duration::from_secs(seconds);
    let mut kpa = kpa(begin);
    kpa.demand(1, at(0));
    assert_eq!(desired(&mut kpa, 0, 1, at(0)), 1);
    kpa.demand(0, at(1));
    assert_eq!(desired(&mut kpa, 1, 0, at(64)), 1);
    kpa.demand(1, at(80));
    kpa.demand(0, at(81));
    assert_eq!(desired(&mut kpa, 1, 0, at(94)), 1, "the grace period would be over");
    assert_eq!(desired(&mut kpa, 1, 0, at(140)), 1);
    assert_eq!(desired(&mut kpa, 1, 0, at(142)), 1, "and begins again");
    assert_eq!(desired(&mut kpa, 1, 0, at(172)), 0);
}

#[test]
fn bounds_hold_and_who_is_not_ready_goes_first() {
    let begin = Instant::now();
    let at = |seconds| begin + Duration::from_secs(seconds);
    let mut kpa = kpa(begin);
    kpa.demand(10_000, at(0));
    let actions = kpa.decide(&Seen { vms: &[], queued: 10_000 }, at(0));
    assert_eq!((actions.start, actions.look_again), (50, Some(at(2))));
    kpa.desired = 2;
    let mut vms = ready(4, at(1));
    vms[1].phase = Phase::Starting;
    assert_eq!(kpa.decide(&Seen { vms: &vms, queued: 0 }, at(1)).drain, [VmId(1), VmId(3)]);
}
