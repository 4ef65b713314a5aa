//! How long a VM takes to begin its answers, as far as choosing between VMs goes.
//!
//! Finagle's balancer keeps a moving average that a slow answer raises at once (peak EWMA). Where requests differ in their
//! work that takes chance for slowness: in `answer_times` of the tests, with one request in twenty that takes twenty times
//! as long, it made the mean answer 40 % slower than no look at latency does. So this is the average of logarithms, as
//! it were the geometric mean: a VM that is slow with all it does stands out, one that had a large request does not.
//!
//! In Finagle time lowers the average too, so that a VM that was slow is asked again some day. Here being passed over for
//! it does, which comes to the same and asks no clock.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

/// Fixed point: one in a binary logarithm.
const ONE: u32 = 1024;
/// Part of the difference by which an answer moves the average.
const SMOOTH: i64 = 16;
/// What it loses when it has decided a choice: half of the time in 64 times.
const PASSED_OVER: u32 = ONE / 64;
/// What differs by less than a factor of two is the noise of a busy host, and decides nothing.
const CLEARLY: u32 = ONE;

/// Binary logarithm of microseconds, and one; zero: not known. Writers may lose each other's last word, which the next
/// answer repairs.
#[derive(Debug, Default)]
pub(crate) struct Latency(AtomicU32);

impl Latency {
    /// An answer took this to begin.
    pub(crate) fn observe(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
        let took = log2(micros) + 1;
        let after = match self.0.load(Relaxed) {
            0 => took,
            before => before.saturating_add_signed(step(before, took)),
        };
        self.0.store(after, Relaxed);
    }

    pub(super) fn passed_over(&self) {
        let before = self.0.load(Relaxed);
        self.0.store(before.saturating_sub(PASSED_OVER).max(1), Relaxed);
    }

    /// In which ratio two VMs' requests count: equally, unless one of the VMs is clearly slower.
    pub(super) fn ratio(&self, other: &Self) -> (u64, u64) {
        let (a, b) = (self.0.load(Relaxed), other.0.load(Relaxed));
        let differ = a.abs_diff(b);
        if a.min(b) == 0 || differ <= CLEARLY {
            return (1, 1);
        }
        let (slower, quicker) = (exp2(differ), u64::from(ONE));
        if a > b { (slower, quicker) } else { (quicker, slower) }
    }
}

fn step(before: u32, took: u32) -> i32 {
    let step = (i64::from(took) - i64::from(before)) / SMOOTH;
    i32::try_from(step).expect("logarithms of 64 bits have 17")
}

/// Between powers of two along a straight line, here and in [`exp2`]. Of one or more.
fn log2(value: u64) -> u32 {
    let whole = value.ilog2();
    let rest = (u128::from(value - (1 << whole)) * u128::from(ONE)) >> whole;
    whole * ONE + u32::try_from(rest).expect("a part of one")
}

/// In units of a [`ONE`]th.
fn exp2(log: u32) -> u64 {
    u64::from(ONE + log % ONE) << (log / ONE).min(40)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(micros: &[u64]) -> Latency {
        let latency = Latency::default();
        micros.iter().for_each(|micros| latency.observe(Duration::from_micros(*micros)));
        latency
    }

    #[test]
    fn only_what_is_known_and_differs_clearly_counts() {
        assert_eq!(of(&[128]).ratio(&of(&[256])), (1, 1));
        assert_eq!(of(&[128]).ratio(&of(&[512])), (1024, 4 * 1024));
        assert_eq!(of(&[384]).ratio(&of(&[128])), (3 * 1024, 1024));
        assert_eq!(of(&[]).ratio(&of(&[1000])), (1, 1));
        let (slow, quick) = of(&[u64::MAX]).ratio(&of(&[0]));
        assert!(slow == 2047 << 40 && quick == 1024);
    }

    #[test]
    fn slowness_shows_after_some_answers_and_one_large_request_does_not() {
        let usual = of(&[1000; 20]);
        let once = of(&[[1000; 20].as_slice(), &[20_000]].concat());
        assert_eq!(once.ratio(&usual), (1, 1));
        let (slow, usual) = of(&[[1000; 20].as_slice(), &[20_000; 50]].concat()).ratio(&usual);
        assert!((17..=20).contains(&(slow / usual)));
    }

    #[test]
    fn who_is_passed_over_is_asked_again_some_day() {
        let (slow, quick) = (of(&[100_000]), of(&[1000]));
        let times = (0..).take_while(|_| {
            slow.passed_over();
            slow.ratio(&quick) != (1, 1)
        });
        assert!((100..1000).contains(&times.count()));
    }
}
