//! Token buckets: how much may pass in one direction of a link.
//!
//! The length of a received frame is only known when it has been read, so a frame passes whenever there is anything in
//! the bucket, and takes what it costs even below zero; the next one waits until the debt is paid. Hence over any span
//! of time there passes at most rate × span + depth + the last frame, and over a long one exactly the rate.
//!
//! Nothing is rounded: the balance counts billionths, and time is in nanoseconds.

use std::num::NonZeroU64;
use std::time::{Duration, Instant};

use crate::spec::Rate;

/// Billionths in one.
const NANO: i128 = 1_000_000_000;
/// The depth of a bucket is what comes in within one second divided by this, but no less than one long frame.
const BURSTS_PER_SECOND: u64 = 10;
/// Bytes of a long frame.
const LONG_FRAME_BYTES: u64 = 1 << 16;
/// Packets that a long frame stands for: segments of 1460 bytes.
const LONG_FRAME_PACKETS: u64 = 45;

/// A bucket that fills at a steady rate.
#[derive(Clone, Debug)]
pub struct TokenBucket {
    /// Tokens per second.
    rate: NonZeroU64,
    /// Most billionths of tokens.
    depth: i128,
    /// Billionths of tokens; below zero: debt.
    balance: i128,
    /// When the balance was right, once anybody has asked.
    at: Option<Instant>,
}

impl TokenBucket {
    /// A full bucket for `rate` tokens per second, with the depth of a tenth of that, or `least` if that is more.
    pub fn new(rate: NonZeroU64, least: u64) -> Self {
        let depth = NANO * i128::from((rate.get() / BURSTS_PER_SECOND).max(least));
        Self { rate, depth, balance: depth, at: None }
    }

    /// How long from `now` nothing may pass; `None`: it may now.
    pub fn wait(&mut self, now: Instant) -> Option<Duration> {
        let rate = i128::from(self.rate.get());
        let since = now.saturating_duration_since(*self.at.get_or_insert(now)).as_nanos();
        // Over so long a time that the product does not fit, any bucket is full.
        let gained = i128::try_from(since).unwrap_or(i128::MAX).saturating_mul(rate);
        self.balance = self.balance.saturating_add(gained).min(self.depth);
        self.at = self.at.max(Some(now));
        if self.balance > 0 {
            return None;
        }
        let missing = 1 - self.balance;
        let nanos = missing / rate + i128::from(missing % rate != 0);
        Some(Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)))
    }

    /// Takes `amount` tokens for what passed.
    pub fn take(&mut self, amount: u64) {
        self.balance = self.balance.saturating_sub(NANO * i128::from(amount));
    }
}

/// Both bounds on one direction.
#[derive(Clone, Debug)]
pub(super) struct Limiter {
    bytes: Option<TokenBucket>,
    packets: Option<TokenBucket>,
}

impl Limiter {
    pub(super) fn new(rate: Rate) -> Self {
        Self {
            bytes: rate.bytes_per_second.map(|rate| TokenBucket::new(rate, LONG_FRAME_BYTES)),
            packets: rate.packets_per_second.map(|rate| TokenBucket::new(rate, LONG_FRAME_PACKETS)),
        }
    }

    /// How long from `now` no frame may pass; `None`: one may now.
    pub(super) fn wait(&mut self, now: Instant) -> Option<Duration> {
        let buckets = [&mut self.bytes, &mut self.packets];
        buckets.into_iter().flatten().filter_map(|bucket| bucket.wait(now)).max()
    }

    /// A frame of `bytes` passed, that stands for `packets`.
    pub(super) fn take(&mut self, bytes: usize, packets: usize) {
        for (bucket, amount) in [(&mut self.bytes, bytes), (&mut self.packets, packets)] {
            if let Some(bucket) = bucket {
                bucket.take(amount as u64);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rate() -> impl Strategy<Value = NonZeroU64> {
        prop_oneof![1u64..100, 1_000u64..10_000_000, Just(u64::MAX)]
            .prop_map(|rate| NonZeroU64::new(rate).unwrap())
    }

    /// Frames that somebody would like to pass: nanoseconds after the one before, and size.
    fn frames() -> impl Strategy<Value = Vec<(u64, u64)>> {
        let gap = prop_oneof![Just(0u64), 0u64..1_000_000, 0u64..3_000_000_000];
        prop::collection::vec((gap, 1u64..65_550), 1..200)
    }

    /// Which of `frames` passed, and when (nanoseconds from the start).
    fn passed(bucket: &mut TokenBucket, start: Instant, frames: &[(u64, u64)]) -> Vec<(u64, u64)> {
        let mut at = 0;
        let mut passed = Vec::new();
        for (gap, size) in frames {
            at += gap;
            if bucket.wait(start + Duration::from_nanos(at)).is_none() {
                bucket.take(*size);
                passed.push((at, *size));
            }
        }
        passed
    }

    proptest! {
        #[test]
        fn over_any_span_no_more_passes_than_rate_and_depth(rate in rate(), frames in frames()) {
            let mut bucket = TokenBucket::new(rate, 1 << 16);
            let depth = u128::from((rate.get() / 10).max(1 << 16));
            let passed = passed(&mut bucket, Instant::now(), &frames);
            for (first, (start, _)) in passed.iter().enumerate() {
                let mut total = 0u128;
                for (end, size) in &passed[first..] {
                    // The last one may be in debt.
                    let allowed = u128::from(rate.get()) * u128::from(end - start) / 1_000_000_000 + depth;
                    prop_assert!(total <= allowed, "{total} of {allowed} from {start} to {end}");
                    total += u128::from(*size);
                }
            }
        }

        #[test]
        fn who_waits_as_told_passes_and_not_a_nanosecond_before(rate in rate(), frames in frames()) {
            let mut bucket = TokenBucket::new(rate, 100);
            let mut now = Instant::now();
            for (gap, size) in frames {
                now += Duration::from_nanos(gap);
                if let Some(wait) = bucket.wait(now) {
                    let just_before = now + wait - Duration::from_nanos(1);
                    prop_assert_eq!(bucket.clone().wait(just_before), Some(Duration::from_nanos(1)));
                    now += wait;
                    prop_assert_eq!(bucket.wait(now), None);
                }
                bucket.take(size);
                let debt = Duration::from_secs_f64(size as f64 / rate.get() as f64 + 1.0);
                prop_assert!(bucket.wait(now).unwrap_or_default() <= debt, "one frame's worth at most");
            }
        }

        #[test]
        fn an_idle_bucket_holds_its_depth_and_no_more(rate in rate(), idle in any::<u32>(), least in 1u64..70_000) {
            let mut bucket = TokenBucket::new(rate, least);
            let start = Instant::now();
            prop_assert_eq!(bucket.wait(start), None);
            let later = start + Duration::from_secs(idle.into());
            prop_assert_eq!(bucket.wait(later), None);
            bucket.take((rate.get() / 10).max(least));
            prop_assert!(bucket.wait(later).is_some());
        }

        #[test]
        fn the_long_run_rate_is_exact(rate in 1_000u64..1_000_000, size in 1u64..65_550) {
            let mut bucket = TokenBucket::new(NonZeroU64::new(rate).unwrap(), 1);
            let start = Instant::now();
            let mut now = start;
            let count = 1000;
            for _ in 0..count {
                now += bucket.wait(now).unwrap_or_default();
                bucket.take(size);
            }
            let total = u128::from(size) * (count - 1);
            let elapsed = (now - start).as_nanos();
            let gained = elapsed * u128::from(rate) / 1_000_000_000 + u128::from(rate / 10);
            prop_assert!(total <= gained + u128::from(size), "too fast");
            prop_assert!(total + 1 + u128::from(size) + u128::from(rate / 10) + 1 >= gained, "too slow");
        }
    }

    #[test]
    fn time_that_goes_backwards_gives_nothing_and_takes_nothing() {
        let mut bucket = TokenBucket::new(NonZeroU64::new(1000).unwrap(), 1);
        let start = Instant::now() + Duration::from_secs(10);
        bucket.wait(start);
        bucket.take(1100);
        let wait = bucket.wait(start).unwrap();
        assert_eq!(bucket.wait(start - Duration::from_secs(5)), Some(wait));
        assert_eq!(bucket.wait(start), Some(wait));
    }

    #[test]
    fn the_slower_of_both_bounds_counts() {
        let rate = |bytes, packets| Rate {
            bytes_per_second: NonZeroU64::new(bytes),
            packets_per_second: NonZeroU64::new(packets),
        };
        let now = Instant::now();
        for (limit, frames) in
            [(rate(0, 0), 1000), (rate(655_360, 0), 66), (rate(0, 450), 45), (rate(655_360, 450), 45)]
        {
            let mut limiter = Limiter::new(limit);
            let mut passed = 0;
            while passed < 1000 && limiter.wait(now).is_none() {
                limiter.take(1000, 1);
                passed += 1;
            }
            assert_eq!(passed, frames, "{limit:?}");
        }
    }
}
