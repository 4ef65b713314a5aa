//! From what guests say to what a pool does: how many VMs it wants at least, and how requests are spread.
//!
//! Guests may say what they like, so all of it is bounded: a value to what makes the pool as large as it may be, the
//! number of VMs to `max`, and a weight to between a quarter and four times that of others.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;
use weir_config::model::{Pool, Signal};
use weir_vmm::VmId;

/// So many intervals after it was told, a value is no longer one.
const STALE: u32 = 3;
/// Weight of a VM that is as busy as its pool's mean, or that has not told.
pub(crate) const NORMAL: u32 = 1000;
const LOWEST: u32 = NORMAL / 4;
const HIGHEST: u32 = NORMAL * 4;

/// What the VMs of one pool have told.
#[derive(Debug)]
pub(super) struct Demand {
    target: f64,
    max: u32,
    weighs: bool,
    stale: Duration,
    values: BTreeMap<VmId, (f64, Instant)>,
}

impl Demand {
    /// Of a pool with this signal.
    pub(super) fn new(pool: &Pool, signal: &Signal) -> Self {
        // Exact, for both are below 2^53.
        let target = signal.target.0 as f64 / 1000.0;
        let stale = signal.interval.saturating_mul(STALE);
        Self { target, max: pool.scale.max, weighs: signal.weights, stale, values: BTreeMap::new() }
    }

    /// `vm` told `value`, finite and not negative, at `now`.
    pub(super) fn told(&mut self, vm: VmId, value: f64, now: Instant) {
        self.values.insert(vm, (value.min(self.target * f64::from(self.max)), now));
    }

    /// Forgets those that `keep` does not, and what was told too long ago.
    pub(super) fn forget(&mut self, now: Instant, keep: impl Fn(VmId) -> bool) {
        let stale = self.stale;
        self.values.retain(|vm, (_, at)| keep(*vm) && now < *at + stale);
    }

    /// What all VMs together have told; `None`: nothing.
    pub(super) fn sum(&self) -> Option<f64> {
        (!self.values.is_empty()).then(|| self.values.values().map(|(value, _)| value).sum())
    }

    /// VMs that this takes, at most `max`.
    pub(super) fn wanted(&self) -> Option<u32> {
        let vms = (self.sum()? / self.target).ceil();
        Some(saturated(vms).min(self.max))
    }

    /// Until when that may be relied upon if nobody tells anything more.
    pub(super) fn until(&self) -> Option<Instant> {
        self.values.values().map(|(_, at)| *at + self.stale).max()
    }

    /// Whether weights are to follow it.
    pub(super) fn weighs(&self) -> bool {
        self.weighs
    }

    /// Each VM's weight: the mean of what was told over what it told itself.
    pub(super) fn weights(&self) -> impl Fn(VmId) -> u32 {
        let mean = self.sum().map_or(0.0, |sum| sum / self.values.len() as f64);
        move |vm| match self.values.get(&vm) {
            // Over zero it is infinite.
            Some((value, _)) if mean > 0.0 => {
                saturated((mean / value * f64::from(NORMAL)).round()).clamp(LOWEST, HIGHEST)
            }
            _ => NORMAL,
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "it saturates, which is what is wanted")]
fn saturated(number: f64) -> u32 {
    number as u32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use weir_config::model::Thousandths;

    use super::*;
    use crate::fake;

    fn demand(target: u64, max: u32) -> Demand {
        let mut pool = fake::pool("p");
        pool.scale.max = max;
        Demand::new(&pool, &fake::signal("jobs", Thousandths(target)))
    }

    fn told(target: u64, max: u32, values: &[f64]) -> Demand {
        let (mut demand, now) = (demand(target, max), Instant::now());
        (0..).zip(values).for_each(|(id, value)| demand.told(VmId(id), *value, now));
        demand
    }

    #[test]
    fn the_sum_is_divided_by_the_target_and_rounded_up() {
        let wanted = |target, values: &[f64]| told(target, 100, values).wanted();
        assert_eq!(wanted(10_000, &[]), None);
        assert_eq!(wanted(10_000, &[0.0, 0.0]), Some(0));
        assert_eq!(wanted(10_000, &[0.1]), Some(1));
        assert_eq!(wanted(10_000, &[10.0, 20.0]), Some(3));
        assert_eq!(wanted(10_000, &[10.0, 20.5]), Some(4));
        assert_eq!(wanted(500, &[1.0]), Some(2));
        assert_eq!(wanted(1, &[1e308]), Some(100));
    }

    #[test]
    fn what_was_told_long_ago_or_by_who_is_gone_does_not_count() {
        let (mut demand, now) = (demand(1000, 100), Instant::now());
        let interval = Duration::from_secs(1);
        demand.told(VmId(1), 5.0, now);
        demand.told(VmId(2), 7.0, now + interval);
        assert_eq!(demand.until(), Some(now + 4 * interval));
        demand.forget(now + 3 * interval, |_| true);
        assert_eq!(demand.wanted(), Some(7));
        demand.forget(now + 3 * interval, |vm| vm != VmId(2));
        assert_eq!((demand.wanted(), demand.until()), (None, None));
    }

    #[test]
    fn weights_are_the_inverse_of_what_was_told() {
        let demand = told(1000, 100, &[10.0, 20.0, 30.0]);
        assert_eq!([0, 1, 2].map(|id| demand.weights()(VmId(id))), [2000, 1000, 667]);
        assert_eq!(demand.weights()(VmId(9)), NORMAL, "it has not told");
        let demand = told(1000, 100, &[0.0, 0.0]);
        assert_eq!(demand.weights()(VmId(0)), NORMAL);
        let demand = told(1000, 100, &[0.0, 50.0, 0.0, 0.0, 0.0]);
        assert_eq!([0, 1].map(|id| demand.weights()(VmId(id))), [HIGHEST, LOWEST]);
    }

    proptest! {
        #[test]
        fn whatever_guests_say_is_bounded(
            target in 1..=1_000_000_000_000_000u64,
            max in 1..=u32::MAX,
            values in proptest::collection::vec(prop_oneof![0.0..1e3, 0.0..f64::MAX, Just(f64::MAX), Just(0.0)], 1..50),
        ) {
            let demand = told(target, max, &values);
            let wanted = demand.wanted().unwrap();
            prop_assert!(wanted <= max);
            let sum: f64 = values.iter().sum();
            prop_assert!(wanted == max || f64::from(wanted) * (target as f64 / 1000.0) >= sum * (1.0 - 1e-9));
            let weight = demand.weights();
            for vm in 0..60 {
                prop_assert!((LOWEST..=HIGHEST).contains(&weight(VmId(vm))));
            }
        }

        #[test]
        fn one_liar_moves_no_others_weight_beyond_the_bounds_nor_its_own_up(
            honest in 1.0..100.0f64,
            lie in 0.0..f64::MAX,
        ) {
            let demand = told(1000, 64, &[honest, honest, honest, lie]);
            let weight = |vm| demand.weights()(VmId(vm));
            prop_assert!((LOWEST..=HIGHEST).contains(&weight(0)));
            prop_assert!(lie < honest || weight(3) <= NORMAL);
            prop_assert!(weight(0) == weight(1) && weight(1) == weight(2));
        }
    }
}
