//! How much patience is left for a body.
//!
//! ```text
//!  resting --wait--> waiting: what is left wanes, and at its end the client is too slow
//!     ^                 |
//!     '--rest, received-'     each byte wins some back, up to the whole
//! ```
//!
//! Who sends faster than the rate is never too slow, however long his pauses are within the whole; who does not send at
//! all is when the whole has passed; and who trickles, soon after that.

use std::time::Duration;

use tokio::time::Instant;
use weir_config::model::Patience;

/// See the module's documentation.
#[derive(Clone, Debug)]
pub(crate) struct Meter {
    whole: Duration,
    /// Bytes per second; zero: the first byte wins back all.
    rate: u64,
    left: Duration,
    waiting_since: Option<Instant>,
}

impl Meter {
    /// Of a body that nobody waits for yet.
    pub(crate) fn new(patience: &Patience) -> Self {
        let whole = patience.body_timeout;
        Self { whole, rate: patience.min_body_rate, left: whole, waiting_since: None }
    }

    /// It is the client's turn, `now` at the latest.
    pub(crate) fn wait(&mut self, now: Instant) {
        self.waiting_since.get_or_insert(now);
    }

    /// It was not his turn before `since`.
    pub(crate) fn wait_from(&mut self, since: Instant) {
        self.waiting_since = self.waiting_since.map(|waiting| waiting.max(since));
    }

    /// It is not his turn any more.
    pub(crate) fn rest(&mut self, now: Instant) {
        if let Some(since) = self.waiting_since.take() {
            self.left = self.left.saturating_sub(now.saturating_duration_since(since));
        }
    }

    /// So many bytes have come.
    pub(crate) fn received(&mut self, bytes: usize, now: Instant) {
        self.rest(now);
        if bytes > 0 {
            let won = (bytes as u64).saturating_mul(1_000_000).checked_div(self.rate);
            let won = won.map_or(self.whole, Duration::from_micros);
            self.left = self.left.saturating_add(won).min(self.whole);
        }
    }

    /// When he is too slow, if nothing comes; `None`: it is not his turn.
    pub(crate) fn ends_at(&self) -> Option<Instant> {
        Some(self.waiting_since? + self.left)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn meter(whole: Duration, rate: u64) -> Meter {
        Meter::new(&Patience { body_timeout: whole, min_body_rate: rate, ..Patience::default() })
    }

    /// How long a client lasts that sends so many bytes after each so many milliseconds.
    fn lasts(meter: &mut Meter, bytes: usize, every: u64, rounds: u32) -> Option<Duration> {
        let began = Instant::now();
        let mut now = began;
        for _ in 0..rounds {
            meter.wait(now);
            now += Duration::from_millis(every);
            let end = meter.ends_at().unwrap();
            if end < now {
                return Some(end - began);
            }
            meter.received(bytes, now);
        }
        None
    }

    proptest! {
        #[test]
        fn who_keeps_the_rate_is_never_too_slow(rate in 1_u64..5000, every in 1_u64..9000, more in 0_usize..100) {
            let least = usize::try_from((rate * every).div_ceil(1000)).unwrap() + more;
            prop_assert_eq!(lasts(&mut meter(10 * SECOND, rate), least, every, 500), None);
        }

        #[test]
        fn who_sends_half_of_it_is_within_twice_the_whole(rate in 2_u64..5000, every in 100_u64..9000) {
            let half = usize::try_from(rate * every / 2000).unwrap();
            let lasted = lasts(&mut meter(10 * SECOND, rate), half, every, 500);
            prop_assert!(lasted.is_some_and(|lasted| lasted >= 10 * SECOND && lasted <= 30 * SECOND), "{lasted:?}");
        }

        /// Whatever it is told, it neither panics nor gives more than the whole.
        #[test]
        fn nobody_gets_more_than_the_whole(
            steps in proptest::collection::vec((0_u8..4, 0_u64..20_000, any::<usize>()), 0..60),
            rate in 0_u64..1000,
        ) {
            let (mut meter, mut now) = (meter(10 * SECOND, rate), Instant::now());
            for (step, pause, bytes) in steps {
                now += Duration::from_millis(pause);
                match step {
                    0 => meter.wait(now),
                    1 => meter.rest(now),
                    2 => meter.wait_from(now),
                    _ => meter.received(bytes, now),
                }
                prop_assert!(meter.ends_at().is_none_or(|end| end <= now + 10 * SECOND));
            }
        }
    }

    #[test]
    fn only_waiting_counts() {
        let (mut meter, now) = (meter(10 * SECOND, 1), Instant::now());
        meter.wait(now);
        meter.rest(now + 4 * SECOND);
        assert_eq!(meter.ends_at(), None);
        meter.wait(now + 60 * SECOND);
        assert_eq!(meter.ends_at(), Some(now + 66 * SECOND));
        // The first byte would have been his only now.
        meter.wait_from(now + 62 * SECOND);
        assert_eq!(meter.ends_at(), Some(now + 68 * SECOND));
        meter.received(3, now + 64 * SECOND);
        meter.wait(now + 64 * SECOND);
        assert_eq!(meter.ends_at(), Some(now + 71 * SECOND));
    }

    #[test]
    fn without_a_rate_each_piece_wins_back_all() {
        assert_eq!(lasts(&mut meter(10 * SECOND, 0), 1, 9999, 100), None);
        assert_eq!(lasts(&mut meter(10 * SECOND, 0), 1, 10_001, 100), Some(10 * SECOND));
    }
}
