use proptest::prelude::*;

use super::*;
use crate::fake;
use crate::simulate::start_time::StartTimes;
use crate::simulate::trace::Arrival;

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn bound_of(arrivals: &[(u64, u64)], hard: u32, start: u64) -> (Duration, u64) {
    let mut pool = fake::pool("p");
    (pool.hard_limit, pool.scale.max) = (hard, 100);
    let arrival = |&(at, service)| Arrival { at: millis(at), service: millis(service), pool: 0 };
    let trace = Trace { arrivals: arrivals.iter().map(arrival).collect() };
    let starts = StartTimes { median: millis(start), p99: millis(start) };
    let conditions = Conditions {
        starts,
        slow: None,
        by_latency: true,
        seed: 0,
        end: millis(100_000),
        step: millis(1000),
    };
    let (measures, _) = bound(&trace, 0, &pool, &conditions);
    (measures.vm_time, measures.starts)
}

#[test]
fn levels_are_counted_by_hand() {
    // 10 + 20 ms of work, each behind a start.
    assert_eq!(bound_of(&[(0, 10), (100, 20)], 1, 5), (millis(10 + 20 + 2 * 5), 2));
    // The pause of 3 ms is shorter than a start.
    assert_eq!(bound_of(&[(0, 10), (13, 20)], 1, 5), (millis(10 + 20 + 3 + 5), 1));
    // 0 to 20 ms one level, and from 5 to 10 ms two.
    assert_eq!(bound_of(&[(0, 10), (5, 15)], 1, 2), (millis(20 + 5 + 2 * 2), 2));
    assert_eq!(bound_of(&[(0, 10), (5, 15)], 2, 2), (millis(20 + 2), 1));
    // One that comes when another ends has its place.
    assert_eq!(bound_of(&[(0, 10), (10, 10)], 1, 2), (millis(20 + 2), 1));
    assert_eq!(bound_of(&[(0, 0)], 1, 2), (millis(2), 1));
}

/// The least that any assignment of requests to VMs takes if each is answered when it comes, by trying all. A VM may
/// also end and start anew between two requests.
fn least(arrivals: &[(u64, u64)], hard: usize, start: u64) -> u64 {
    fn cost(mut requests: Vec<(u64, u64)>, start: u64) -> u64 {
        requests.sort_unstable();
        let (mut total, mut until) = (0, None::<u64>);
        for (from, to) in requests {
            total += until.map_or(start, |until| from.saturating_sub(until).min(start));
            total += to.saturating_sub(from.max(until.unwrap_or(0)));
            until = until.max(Some(to));
        }
        total
    }
    fn assign(rest: &[(u64, u64)], vms: &mut Vec<Vec<(u64, u64)>>, hard: usize, start: u64) -> u64 {
        let Some((&(at, service), rest)) = rest.split_first() else {
            return vms.iter().map(|requests| cost(requests.clone(), start)).sum();
        };
        let mut best = u64::MAX;
        for index in 0..=vms.len() {
            if index == vms.len() {
                vms.push(Vec::new());
            }
            if vms[index].iter().filter(|(_, to)| *to > at).count() < hard {
                vms[index].push((at, at + service));
                best = best.min(assign(rest, vms, hard, start));
                vms[index].pop();
            }
            if vms[index].is_empty() {
                vms.pop();
            }
        }
        best
    }
    assign(arrivals, &mut Vec::new(), hard, start)
}

proptest! {
    #[test]
    fn no_assignment_takes_less(
        mut arrivals in proptest::collection::vec((0..40u64, 1..20u64), 1..6),
        hard in 1..3u32,
        start in 1..8u64,
    ) {
        arrivals.sort_unstable();
        let (bound, _) = bound_of(&arrivals, hard, start);
        let least = millis(least(&arrivals, hard as usize, start));
        prop_assert!(bound <= least, "{bound:?} {least:?}");
        if hard == 1 {
            prop_assert_eq!(bound, least, "it can be reached if a vm has one request");
        }
    }
}
