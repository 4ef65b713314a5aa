//! Whole simulations: properties on traces of any kind, and what a report and a CSV look like.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use tokio::time::Instant;
use weir_config::model::Overflow;

use super::policy::{Actions, Policy, Seen};
use super::*;
use crate::fake;

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Two pools with room for a few requests, and a host with room for some VMs.
fn config(soft: u32, more: u32, (min, max): (u32, u32), max_pending: usize, host: (u32, u32)) -> Config {
    let pools = ["a", "b"].map(|name| {
        let mut pool = fake::pool(name);
        (pool.soft_limit, pool.hard_limit) = (soft, soft + more);
        (pool.scale.min, pool.scale.max) = (min, max.max(min));
        (pool.queue.max_pending, pool.queue.timeout) = (max_pending, millis(1500));
        (pool.scale.idle_timeout, pool.scale.stable_window) = (millis(4000), millis(6000));
        pool.scale.panic_window = millis(1000);
        pool
    });
    let mut config = fake::config(pools);
    (config.host.max_vms, config.host.max_starts) = (host.0.max(2 * min), host.1);
    config
}

fn trace(arrivals: &[(u64, u64, usize)]) -> Trace {
    let mut at = Duration::ZERO;
    let arrival = |&(after, service, pool): &(u64, u64, usize)| {
        at += millis(after);
        Arrival { at, service: millis(service), pool }
    };
    Trace { arrivals: arrivals.iter().map(arrival).collect() }
}

fn arrivals() -> impl Strategy<Value = Vec<(u64, u64, usize)>> {
    let gap = prop_oneof![8 => 0..200u64, 1 => 1000..20_000u64];
    proptest::collection::vec((gap, 0..1500u64, 0..2usize), 1..120)
}

/// Sees whether a pool ever has more VMs than it may.
struct Watched<P>(P, u32);

impl<P: Policy> Policy for Watched<P> {
    fn demand(&mut self, requests: u32, now: Instant) {
        self.0.demand(requests, now);
    }

    fn decide(&mut self, seen: &Seen<'_>, now: Instant) -> Actions {
        let actions = self.0.decide(seen, now);
        let starts = u32::try_from(seen.vms.len()).unwrap() + actions.start;
        assert!(starts <= self.1 || actions.start == 0, "{starts} vms of {}", self.1);
        actions
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn nothing_is_lost_and_no_limit_is_passed(
        arrivals in arrivals(),
        (soft, more) in (1..4u32, 0..4u32),
        scale in (0..2u32, 1..6u32),
        max_pending in 1..40usize,
        host in (2..8u32, 1..4u32),
        reject: bool,
        slow in proptest::option::of((0.0..=1.0, 1.0..=10.0)),
        seed: u64,
    ) {
        let mut config = config(soft, more, scale, max_pending, host);
        if reject {
            config.pools = config.pools.into_iter().map(|(name, pool)| {
                let mut pool = (*pool).clone();
                pool.queue.overflow = Overflow::Reject;
                (name, Arc::new(pool))
            }).collect::<BTreeMap<_, _>>();
        }
        let slow = slow.map(|(share, factor)| SlowVms { share, factor });
        let options = Options { seed, slow, step: Some(millis(1000)), settle: millis(10_000), ..Options::default() };
        let trace = trace(&arrivals);
        let conditions = Conditions { starts: options.starts, slow: None, by_latency: true, seed, end: millis(5000), step: millis(1000) };
        engine::run(&trace, &config, &conditions, |pool, begin| Box::new(Watched(Weir::new(Limits::of(pool), begin), pool.scale.max)));
        let comparison = simulate(&trace, &config, options).unwrap();
        for outcome in &comparison.outcomes {
            for (index, pool) in config.pools.values().enumerate() {
                let measures = &outcome.pools[index];
                let mine = || trace.arrivals.iter().filter(|arrival| arrival.pool == index);
                prop_assert_eq!(measures.arrivals, mine().count() as u64);
                prop_assert_eq!(measures.arrivals, measures.served + measures.rejected + measures.timed_out);
                prop_assert_eq!(measures.waits.len() as u64, measures.served + measures.timed_out);
                let answers = if slow.is_some() && outcome.policy != "clairvoyant" { measures.served } else { 0 };
                prop_assert_eq!(measures.answers.len() as u64, answers);
                prop_assert!(measures.waits.last().is_none_or(|wait| *wait <= pool.queue.timeout));
                let max = f64::from(pool.scale.max) + 1e-6;
                prop_assert!(measures.vms.iter().all(|vms| *vms <= max), "{}: {:?}", outcome.policy, measures.vms);
                if measures.served == measures.arrivals && outcome.policy != "clairvoyant" {
                    let work: Duration = mine().map(|arrival| arrival.service).sum();
                    prop_assert!(measures.vm_time >= work / pool.hard_limit);
                }
            }
            if outcome.policy != "clairvoyant" {
                let total = outcome.total();
                let max = f64::from(config.host.max_vms) + 1e-6;
                prop_assert!(total.vms.iter().all(|vms| *vms <= max), "{}: {:?}", outcome.policy, total.vms);
            }
        }
    }

    #[test]
    fn a_run_depends_on_its_seed_alone(arrivals in arrivals(), seed: u64) {
        let (trace, config) = (trace(&arrivals), config(2, 2, (0, 5), 10, (6, 2)));
        let options = Options { seed, ..Options::default() };
        let [first, second] = [(); 2].map(|()| simulate(&trace, &config, options).unwrap());
        prop_assert_eq!(first.to_string(), second.to_string());
    }

    #[test]
    fn who_lets_nobody_wait_takes_at_least_the_bound(arrivals in arrivals(), hard in 1..4u32) {
        // All VMs that there may be are kept from the begin, which is before the first request.
        let mut config = config(hard, 0, (40, 40), 1, (80, 80));
        let mut later = trace(&arrivals[..arrivals.len().min(40)]);
        later.arrivals.iter_mut().for_each(|arrival| arrival.at += millis(1000));
        let weir = simulate(&later, &config, Options::default()).unwrap().outcomes.remove(0).total();
        prop_assert_eq!((weir.wait(1, 1), weir.served), (Duration::ZERO, weir.arrivals));
        config.pools.values_mut().for_each(|pool| Arc::make_mut(pool).scale.min = 0);
        let bound = simulate(&later, &config, Options::default()).unwrap().outcomes.pop().unwrap().total();
        prop_assert!(bound.vm_time <= weir.vm_time);
        let work: Duration = later.arrivals.iter().map(|arrival| arrival.service).sum();
        prop_assert!(bound.vm_time >= work / hard);
    }
}

#[test]
fn a_report_has_all_policies_and_80_columns_and_a_csv_all_steps() {
    let config = config(1, 1, (0, 4), 10, (8, 8));
    let trace = trace(&[(0, 900, 0), (100, 900, 1), (50_000, 10, 0)]);
    let options = Options { step: Some(millis(1000)), ..Options::default() };
    let comparison = simulate(&trace, &config, options).unwrap();
    let text = comparison.to_string();
    for policy in ["weir", "weir-kept", "kpa", "kpa-tuned", "clairvoyant"] {
        assert_eq!(
            text.lines().filter(|line| line.starts_with(&format!("  {policy} "))).count(),
            3,
            "{text}"
        );
        assert!(text.contains(&format!("VMs, {policy}")), "{text}");
    }
    assert!(text.contains("pool a") && text.contains("pool b") && text.contains("all pools"), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    let mut csv = Vec::new();
    comparison.write_csv(&mut csv).unwrap();
    let csv = String::from_utf8(csv).unwrap();
    let mut lines = csv.lines();
    assert_eq!(lines.next(), Some("time_s,pool,demand,weir,weir-kept,kpa,kpa-tuned,clairvoyant"));
    let first = lines.next().unwrap();
    assert!(first.starts_with("0.000,a,0.900,1.000,1.000,2.000,2.000,0.90"), "{first}");
    // 50.1 s until the last arrival, its timeout of 1.5 s, its 10 ms and the settling; two pools.
    assert_eq!(csv.lines().count(), 1 + 172 * 2);
}

#[test]
fn where_vms_are_slow_answers_are_reported_too_and_whoever_does_not_look_at_latency() {
    let (config, trace) =
        (config(1, 1, (0, 4), 10, (8, 8)), trace(&[(0, 900, 0), (100, 900, 1), (50_000, 10, 0)]));
    let options = Options { slow: Some(SlowVms { share: 1.0, factor: 3.0 }), ..Options::default() };
    let comparison = simulate(&trace, &config, options).unwrap();
    let text = comparison.to_string();
    let (_, answers) = text.split_once("answers, ms\n").unwrap();
    for policy in ["weir", "weir-kept", "weir-blind", "kpa", "kpa-tuned"] {
        let row = answers.lines().find(|line| line.starts_with(&format!("  {policy} "))).unwrap();
        // Three times 900 ms, and a start.
        assert!(row.contains("  270"), "{text}");
    }
    assert!(text.contains("100 % of the VMs take 3 times as long"), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
}

#[test]
fn series_that_would_not_fit_and_endless_settling_are_refused() {
    let (config, trace) = (config(1, 1, (0, 4), 10, (8, 8)), trace(&[(0, 1000, 0)]));
    let settle = Duration::from_secs(86_000);
    let options = Options { step: Some(millis(1)), settle, ..Options::default() };
    assert!(matches!(simulate(&trace, &config, options), Err(SimulateError::Step { pools: 2, .. })));
    let options = Options { settle: Duration::from_secs(90_000), ..Options::default() };
    assert!(matches!(simulate(&trace, &config, options), Err(SimulateError::Settle(_))));
}
