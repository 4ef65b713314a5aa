//! A budget for retries, so that they cannot multiply the load on VMs that fail because of load.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Retries per request, on top of the first try.
pub(crate) const RETRIES_MAX: usize = 2;

/// Length of the windows that are counted in.
const WINDOW: Duration = Duration::from_secs(10);
/// Retries allowed in a window however few requests there are.
const FLOOR: u64 = 100;
/// One retry per this many requests of a window.
const REQUESTS_PER_RETRY: u64 = 5;

const COUNT_BITS: u32 = 24;
const COUNT_MAX: u64 = (1 << COUNT_BITS) - 1;

/// At most one retry per five requests, and ten per second however few requests there are; counted in windows of ten
/// seconds. Lock-free: one word holds the window's number (16 bits), its requests and its retries (24 bits each, which
/// stop at their maximum).
#[derive(Debug, Default)]
pub(crate) struct RetryBudget(AtomicU64);

impl RetryBudget {
    /// Counts a request that begins `now` after the budget's creation.
    pub(crate) fn request(&self, now: Duration) {
        let count = |word| {
            let (requests, retries) = counts(word, window(now));
            Some(pack(window(now), (requests + 1).min(COUNT_MAX), retries))
        };
        let _ = self.0.fetch_update(Relaxed, Relaxed, count);
    }

    /// Takes a retry out of the budget, if one is left.
    pub(crate) fn try_retry(&self, now: Duration) -> bool {
        let take = |word| {
            let (requests, retries) = counts(word, window(now));
            let allowed = retries < FLOOR + requests / REQUESTS_PER_RETRY && retries < COUNT_MAX;
            allowed.then(|| pack(window(now), requests, retries + 1))
        };
        self.0.fetch_update(Relaxed, Relaxed, take).is_ok()
    }
}

fn window(now: Duration) -> u64 {
    (now.as_secs() / WINDOW.as_secs()) & 0xffff
}

fn counts(word: u64, window: u64) -> (u64, u64) {
    if word >> (2 * COUNT_BITS) != window {
        return (0, 0);
    }
    (word >> COUNT_BITS & COUNT_MAX, word & COUNT_MAX)
}

fn pack(window: u64, requests: u64, retries: u64) -> u64 {
    window << (2 * COUNT_BITS) | requests << COUNT_BITS | retries
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_window_allows_a_fifth_of_its_requests_and_a_hundred(
            steps in proptest::collection::vec((0..8u64, any::<bool>()), 0..600),
        ) {
            let budget = RetryBudget::default();
            let (mut now, mut window, mut requests, mut retries) = (0, 0, 0, 0);
            for (pause, is_request) in steps {
                now += pause / 7;
                if now / 10 != window {
                    (window, requests, retries) = (now / 10, 0, 0);
                }
                let at = Duration::from_secs(now);
                if is_request {
                    requests += 1;
                    budget.request(at);
                } else {
                    let expected = retries < 100 + requests / 5;
                    prop_assert_eq!(budget.try_retry(at), expected);
                    retries += u64::from(expected);
                }
            }
        }
    }

    #[test]
    fn counts_stop_at_their_maximum() {
        let budget = RetryBudget(AtomicU64::new(pack(0, COUNT_MAX, 0)));
        budget.request(Duration::ZERO);
        assert_eq!(counts(budget.0.load(Relaxed), 0), (COUNT_MAX, 0));
        assert!(budget.try_retry(Duration::ZERO));
    }
}
