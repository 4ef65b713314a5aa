//! How long a VM takes to begin its answers, as far as choosing between VMs goes.
//!
//! A moving average that a slow answer raises at once and quick ones lower bit by bit, as in Finagle's peak EWMA balancer.
//! There time lowers it too, so that a VM that was slow is asked again some day. Here being passed over for it does, which
//! comes to the same and asks no clock.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

/// Part of the difference by which a quicker answer lowers the average.
const QUICKER: u32 = 8;
/// Part of itself that it loses when it has decided a choice: half in 44 times.
const PASSED_OVER: u32 = 64;
/// What differs by less is the noise of a busy host, and decides nothing.
const CLEARLY: u64 = 2;

/// Microseconds; zero: not known. Writers may lose each other's last word, which the next answer repairs.
#[derive(Debug, Default)]
pub(crate) struct Latency(AtomicU32);

impl Latency {
    /// An answer took this to begin.
    pub(crate) fn observe(&self, took: Duration) {
        let took = u32::try_from(took.as_micros()).unwrap_or(u32::MAX).max(1);
        let before = self.0.load(Relaxed);
        let after = if took < before { before - (before - took).div_ceil(QUICKER) } else { took };
        self.0.store(after, Relaxed);
    }

    pub(super) fn passed_over(&self) {
        let before = self.0.load(Relaxed);
        self.0.store(before - before.div_ceil(PASSED_OVER), Relaxed);
    }

    /// In which ratio two VMs' requests count: equally, unless one of the VMs is clearly slower.
    pub(super) fn ratio(&self, other: &Self) -> (u64, u64) {
        let (a, b) = (u64::from(self.0.load(Relaxed)), u64::from(other.0.load(Relaxed)));
        if a.min(b) > 0 && a.max(b) > CLEARLY * a.min(b) { (a, b) } else { (1, 1) }
    }
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
    fn slow_answers_raise_it_at_once_and_quick_ones_lower_it_bit_by_bit() {
        assert_eq!(of(&[100, 900]).0.into_inner(), 900);
        assert_eq!(of(&[100, 900, 100]).0.into_inner(), 800);
        assert_eq!(of(&[[900].as_slice(), &[100; 100]].concat()).0.into_inner(), 100);
        assert_eq!(of(&[u64::MAX]).0.into_inner(), u32::MAX);
    }

    #[test]
    fn only_what_is_known_and_differs_clearly_counts() {
        assert_eq!(of(&[100]).ratio(&of(&[200])), (1, 1));
        assert_eq!(of(&[100]).ratio(&of(&[201])), (100, 201));
        assert_eq!(of(&[]).ratio(&of(&[1000])), (1, 1));
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
