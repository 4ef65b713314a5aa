//! Tiny traces whose outcome is computed by hand.

use super::*;
use crate::fake;
use crate::simulate::policy::{Actions, Seen};

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Starts a VM whenever one is missing for who waits.
struct OnDemand;

impl Policy for OnDemand {
    fn decide(&mut self, seen: &Seen<'_>, _now: Instant) -> Actions {
        let coming = seen.vms.iter().filter(|vm| vm.in_flight == 0).count();
        let start = u32::try_from(seen.queued.saturating_sub(coming)).unwrap();
        Actions { start, ..Actions::default() }
    }
}

/// Two VMs from the begin; the first is drained at a time.
struct DrainFirst(Instant);

impl Policy for DrainFirst {
    fn decide(&mut self, seen: &Seen<'_>, now: Instant) -> Actions {
        let drain = seen.vms.iter().map(|vm| vm.id).filter(|id| *id == VmId(1) && now >= self.0).collect();
        let start = if seen.vms.is_empty() { 2 } else { 0 };
        Actions { start, drain, look_again: (now < self.0).then_some(self.0) }
    }
}

/// Requests by arrival and service, a start of 10 ms, an end at 1 s.
fn run_one(
    pool: Pool,
    arrivals: &[(u64, u64)],
    policy: impl FnMut(&Pool, Instant) -> Box<dyn Policy>,
) -> Measures {
    let arrival = |&(at, service)| Arrival { at: millis(at), service: millis(service), pool: 0 };
    let trace = Trace { arrivals: arrivals.iter().map(arrival).collect() };
    let starts = StartTimes { median: millis(10), p99: millis(10) };
    let conditions =
        Conditions { starts, slow: None, by_latency: true, seed: 1, end: millis(1000), step: millis(100) };
    run(&trace, &fake::config([pool]), &conditions, policy).remove(0)
}

fn pool(soft: u32, hard: u32) -> Pool {
    let mut pool = fake::pool("p");
    (pool.soft_limit, pool.hard_limit, pool.queue.timeout) = (soft, hard, millis(50));
    pool
}

fn on_demand(_: &Pool, _: Instant) -> Box<dyn Policy> {
    Box::new(OnDemand)
}

#[test]
fn a_request_waits_for_the_start_and_the_next_does_not() {
    let measures = run_one(pool(1, 1), &[(100, 20), (140, 20)], on_demand);
    assert_eq!((measures.arrivals, measures.served, measures.starts), (2, 2, 1));
    assert_eq!(measures.waits, [millis(0), millis(10)]);
    assert_eq!(measures.vm_time, millis(900), "from 100 ms to the end");
    assert_eq!(measures.vms[..3], [0.0, 1.0, 1.0]);
}

#[test]
fn who_comes_first_goes_first() {
    let mut one = pool(1, 1);
    one.scale.max = 1;
    // The one vm is ready at 10 ms and serves from 10 to 30, 30 to 50, 50 to 70 ms; the policy's second start is not for
    // lack of trying.
    let mut config = fake::config([one]);
    config.host.max_vms = 1;
    let service = millis(20);
    let arrivals = [0, 1, 2].map(|at| Arrival { at: millis(at), service, pool: 0 });
    let starts = StartTimes { median: millis(10), p99: millis(10) };
    let conditions =
        Conditions { starts, slow: None, by_latency: true, seed: 1, end: millis(1000), step: millis(100) };
    let measures = run(&Trace { arrivals: arrivals.into() }, &config, &conditions, on_demand).remove(0);
    assert_eq!((measures.waits, measures.starts), (vec![millis(10), millis(29), millis(48)], 1));
}

#[test]
fn waiting_ends_with_the_timeout_and_a_full_queue_takes_nobody() {
    let mut full = pool(1, 1);
    full.queue.max_pending = 2;
    let drain = |_: &Pool, begin: Instant| -> Box<dyn Policy> { Box::new(DrainFirst(begin + millis(5))) };
    // The first vm is drained while it starts. The second takes one of five; two wait, two are turned away, and nobody
    // leaves within 50 ms.
    let arrivals = [(20, 200), (20, 1), (20, 1), (20, 1), (20, 1)];
    let measures = run_one(full, &arrivals, drain);
    assert_eq!((measures.served, measures.rejected, measures.timed_out), (1, 2, 2));
    assert_eq!(measures.waits, [millis(0), millis(50), millis(50)]);
    assert_eq!(measures.vm_time, millis(5 + 1000));
}

#[test]
fn one_that_drains_ends_with_its_last_request_and_gets_no_other() {
    let drain = |_: &Pool, begin: Instant| -> Box<dyn Policy> { Box::new(DrainFirst(begin + millis(100))) };
    // Two at a time, so both vms have two; the first ends at 250 ms, and both later ones go to the second.
    let arrivals = [(50, 200), (50, 200), (50, 200), (50, 200), (120, 10), (260, 10)];
    let measures = run_one(pool(2, 3), &arrivals, drain);
    assert_eq!((measures.served, measures.starts, measures.wait(1, 1)), (6, 2, Duration::ZERO));
    assert_eq!(measures.vm_time, millis(250 + 1000));
}

#[test]
fn an_isolated_vm_takes_the_next_one_when_it_is_clean() {
    let mut isolated = pool(1, 1);
    isolated.isolation = weir_config::model::Isolation::Request;
    isolated.scale.max = 1;
    let one = |_: &Pool, begin: Instant| -> Box<dyn Policy> { Box::new(DrainFirst(begin)) };
    let measures = run_one(isolated, &[(20, 20), (30, 20)], one);
    assert_eq!(measures.waits, [millis(0), millis(10) + RESET]);
}

#[test]
fn room_for_starts_is_shared_and_passed_on() {
    let pools = ["a", "b"].map(|name| Pool { name: name.to_owned(), ..pool(1, 1) });
    let mut config = fake::config(pools);
    config.host.max_starts = 1;
    let arrivals = [0, 1].map(|pool| Arrival { at: Duration::ZERO, service: millis(5), pool });
    let starts = StartTimes { median: millis(10), p99: millis(10) };
    let conditions =
        Conditions { starts, slow: None, by_latency: true, seed: 1, end: millis(1000), step: millis(100) };
    let measures = run(&Trace { arrivals: arrivals.into() }, &config, &conditions, on_demand);
    assert_eq!([&measures[0].waits, &measures[1].waits], [&vec![millis(10)], &vec![millis(20)]]);
}
