//! A pool's budget for retries, so that they cannot multiply the load on VMs that fail because of load.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use prometheus::IntCounter;
use weir_config::model::Retry;

/// Retries per request, on top of the first try: as many VMs may end under it, or take no connection for it. It is not by
/// being asked again that more of them end, and a request that ends them is soon in quarantine.
pub(crate) const RETRIES_MAX: usize = 5;
/// The same after VMs that broke off and are still there: it may be the request's doing.
const SURVIVORS_MAX: usize = 2;
/// How long the news of a VM's end may take. Its connections break first.
const NEWS: Duration = Duration::from_millis(100);

/// Length of the windows that are counted in.
const WINDOW: Duration = Duration::from_secs(10);

const COUNT_BITS: u32 = 24;
const COUNT_MAX: u64 = (1 << COUNT_BITS) - 1;

/// Whose doing it is that a request has no answer, try by try.
#[derive(Debug, Default)]
pub(crate) struct Blame {
    /// Tries whose VM was still there afterwards.
    survived: usize,
    /// The last try's connection broke.
    broke: bool,
}

impl Blame {
    /// The connection broke when the request had been sent, or part of it.
    pub(crate) fn broke(&mut self) {
        self.broke = true;
    }

    /// Whether the request may be sent once more. `ended` resolves when the last try's VM is known to have ended, and is
    /// waited for only where it makes the difference.
    pub(crate) async fn allows_retry(&mut self, ended: impl Future<Output = ()> + Send) -> bool {
        if !std::mem::take(&mut self.broke) {
            return true;
        }
        let patience = if self.survived < SURVIVORS_MAX { Duration::ZERO } else { NEWS };
        if tokio::time::timeout(patience, ended).await.is_err() {
            self.survived += 1;
        }
        self.survived <= SURVIVORS_MAX
    }
}

/// At most `retry.budget` retries per request of the pool, and `retry.floor` per second however few requests there are;
/// counted in windows of ten seconds. Lock-free: one word holds the window's number (16 bits), its requests and its
/// retries (24 bits each, which stop at their maximum).
#[derive(Debug)]
struct RetryBudget {
    word: AtomicU64,
    /// Retries in a window however few requests it has.
    floor: u64,
    /// Retries in a window per thousand of its requests.
    per_thousand: u64,
}

impl RetryBudget {
    fn new(retry: &Retry) -> Self {
        Self {
            word: AtomicU64::new(0),
            floor: u64::from(retry.floor) * WINDOW.as_secs(),
            per_thousand: retry.budget.0,
        }
    }

    /// Counts a request that begins `now` after the budget's creation.
    fn request(&self, now: Duration) {
        let count = |word| {
            let (requests, retries) = counts(word, window(now));
            Some(pack(window(now), (requests + 1).min(COUNT_MAX), retries))
        };
        let _ = self.word.fetch_update(Relaxed, Relaxed, count);
    }

    /// Takes a retry out of the budget, if one is left.
    fn try_retry(&self, now: Duration) -> bool {
        let take = |word| {
            let (requests, retries) = counts(word, window(now));
            let allowed = retries < self.allowance(requests) && retries < COUNT_MAX;
            allowed.then(|| pack(window(now), requests, retries + 1))
        };
        self.word.fetch_update(Relaxed, Relaxed, take).is_ok()
    }

    /// Retries in a window of so many requests.
    fn allowance(&self, requests: u64) -> u64 {
        self.floor + requests * self.per_thousand / 1000
    }
}

/// A pool's retries.
#[derive(Debug)]
pub(crate) struct Retries {
    budget: RetryBudget,
    /// Those that were made.
    made: IntCounter,
    /// Those that the budget did not allow.
    refused: IntCounter,
}

impl Retries {
    pub(crate) fn new(retry: &Retry, made: IntCounter, refused: IntCounter) -> Self {
        Self { budget: RetryBudget::new(retry), made, refused }
    }

    /// Counts a request for the pool, as [`RetryBudget::request`].
    pub(crate) fn request(&self, now: Duration) {
        self.budget.request(now);
    }

    /// Whether one more may be made, which then is.
    pub(crate) fn try_retry(&self, now: Duration) -> bool {
        let allowed = self.budget.try_retry(now);
        if allowed { &self.made } else { &self.refused }.inc();
        allowed
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
    use weir_config::model::Thousandths;

    use super::*;

    /// Whether retries are allowed after tries on VMs that end so many milliseconds after their connections broke, or never.
    async fn allowed(ends: &[Option<u64>]) -> Vec<bool> {
        let (mut blame, mut allowed) = (Blame::default(), Vec::new());
        for end in ends {
            blame.broke();
            let ended = async {
                match end {
                    Some(after) => tokio::time::sleep(Duration::from_millis(*after)).await,
                    None => std::future::pending().await,
                }
            };
            allowed.push(blame.allows_retry(ended).await);
        }
        allowed
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_is_sent_again_twice_after_vms_that_live_on() {
        assert_eq!(allowed(&[None, None, None, Some(0)]).await, [true, true, false, false]);
        assert_eq!(allowed(&[None, Some(0), None, Some(0), None]).await, [true, true, true, true, false]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_news_of_a_vms_end_may_be_late() {
        assert_eq!(allowed(&[Some(50); 6]).await, [true; 6]);
        assert_eq!(allowed(&[Some(101); 3]).await, [true, true, false]);
    }

    #[tokio::test(start_paused = true)]
    async fn who_could_not_even_connect_has_done_nothing() {
        let mut blame = Blame::default();
        for _ in 0..9 {
            assert!(blame.allows_retry(std::future::pending()).await);
        }
    }

    fn budget(thousandths: u64, floor: u32) -> RetryBudget {
        RetryBudget::new(&Retry { budget: Thousandths(thousandths), floor })
    }

    proptest! {
        #[test]
        fn a_window_allows_its_requests_share_and_its_floor(
            steps in proptest::collection::vec((0..8u64, any::<bool>()), 0..600),
            thousandths in 0..=1000u64,
            floor in 0..12u32,
        ) {
            let budget = budget(thousandths, floor);
            let (mut now, mut window, mut requests, mut retries) = (0, 0, 0u64, 0u64);
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
                    // A thousandth of a retry is none.
                    let expected = retries * 1000 + 1000 <= u64::from(floor) * 10_000 + requests * thousandths;
                    prop_assert_eq!(budget.try_retry(at), expected);
                    retries += u64::from(expected);
                }
            }
        }
    }

    #[test]
    fn without_budget_and_floor_nothing_is_tried_again() {
        let budget = budget(0, 0);
        budget.request(Duration::ZERO);
        assert!(!budget.try_retry(Duration::ZERO));
    }

    #[test]
    fn counts_stop_at_their_maximum() {
        let budget = budget(200, 10);
        budget.word.store(pack(0, COUNT_MAX, 0), Relaxed);
        budget.request(Duration::ZERO);
        assert_eq!(counts(budget.word.load(Relaxed), 0), (COUNT_MAX, 0));
        assert!(budget.try_retry(Duration::ZERO));
    }
}
