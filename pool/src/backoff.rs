//! How long a pool whose VMs fail waits before it starts the next.
//!
//! A start fails if the VM never says READY, or if its READY does not last: a guest that crashes on its first request
//! is as much a loop as one that crashes at boot. Failures of VMs that were started before the last failure was known
//! count once, so that a batch is one failure. A READY that lasts wipes the slate.
//!
//! Where the host could not make the VM (no descriptors, no memory, no launcher) nothing speaks against the pool, and it
//! may be over soon: the pool tries once in a while however long it lasts, and requests wait for that as long as a request
//! may wait at all.

use std::time::Duration;

use tokio::time::Instant;

use crate::scale::Retry;

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(10);
/// The same where the VM's image is not known to be at fault: it was READY, so that it can serve, and it may be one
/// client's requests that kill it; or the host could not make it.
const LONGEST_OF_THE_INNOCENT: Duration = Duration::from_secs(1);
/// How long a VM must be READY to count as a good start.
pub(crate) const LASTING: Duration = Duration::from_secs(1);
/// After this many failures in a row, the last of a guest that was not READY, requests no longer wait for the next attempt if there is no VM.
const HOPELESS: u32 = 2;

/// How far a VM that failed had come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Came {
    /// The host could not make it.
    NotIntoBeing,
    /// Its guest ran, and was never READY.
    Nowhere,
    /// It was READY, but not for long.
    ToReady,
}

/// A pool's consecutive failures.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    last: Option<Failure>,
}

#[derive(Debug)]
struct Failure {
    /// How many in a row, at least one.
    count: u32,
    at: Instant,
    until: Instant,
    came: Came,
    /// Since when the host could make none.
    host_since: Option<Instant>,
    reason: String,
    /// A VM has become READY since.
    ready_since: bool,
}

impl Backoff {
    /// A VM that was started at `started` failed; the delay until the next start.
    pub(crate) fn failed(&mut self, started: Instant, came: Came, reason: String, now: Instant) -> Duration {
        let count = match &self.last {
            Some(last) if started < last.at => last.count,
            Some(last) => last.count.saturating_add(1),
            None => 1,
        };
        let longest = if came == Came::Nowhere { LONGEST } else { LONGEST_OF_THE_INNOCENT };
        let delay = FIRST.saturating_mul(1 << (count - 1).min(16)).min(longest);
        let before = self.last.as_ref().filter(|last| !last.ready_since).and_then(|last| last.host_since);
        let host_since = (came == Came::NotIntoBeing).then(|| before.unwrap_or(now));
        let until = now + delay;
        self.last = Some(Failure { count, at: now, until, came, host_since, reason, ready_since: false });
        delay
    }

    /// A VM became READY.
    pub(crate) fn ready(&mut self) {
        if let Some(last) = &mut self.last {
            last.ready_since = true;
        }
    }

    /// VMs that became READY at `ready_at` are still so.
    pub(crate) fn still_ready(&mut self, ready_at: impl IntoIterator<Item = Instant>, now: Instant) {
        // Only who has failed looks at them all.
        self.last.take_if(|last| {
            let mut ready_at = ready_at.into_iter();
            ready_at.any(|at| at >= last.at && now.saturating_duration_since(at) >= LASTING)
        });
    }

    /// Whether it was not only one.
    pub(crate) fn is_repeated(&self) -> bool {
        self.last.as_ref().is_some_and(|last| last.count > 1)
    }

    /// What this leaves of the right to start VMs.
    pub(crate) fn retry(&self, now: Instant) -> Retry {
        match &self.last {
            None => Retry::Free,
            Some(last) if last.ready_since => Retry::Free,
            Some(last) if now < last.until => Retry::At(last.until),
            Some(_) => Retry::Probe,
        }
    }

    /// If requests, which may wait for `patience`, should not wait for the next attempt: why the last one failed, and
    /// how long until the next.
    pub(crate) fn hopeless(&self, patience: Duration, now: Instant) -> Option<(&str, Duration)> {
        let hopeless = |last: &&Failure| {
            let given_up = match last.came {
                Came::NotIntoBeing => last.host_since.is_some_and(|since| now - since >= patience),
                Came::Nowhere => last.count >= HOPELESS,
                Came::ToReady => false,
            };
            given_up && now < last.until
        };
        let last = self.last.as_ref().filter(hopeless)?;
        Some((&last.reason, last.until - now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;
    const NOWHERE: Came = Came::Nowhere;
    const PATIENCE: Duration = Duration::from_secs(10);

    #[test]
    fn delay_doubles_up_to_its_limit_and_a_lasting_ready_resets_it() {
        let mut now = Instant::now();
        let mut backoff = Backoff::default();
        for expected in [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000] {
            assert_eq!(backoff.failed(now, NOWHERE, String::new(), now), MS(expected));
            assert_eq!(backoff.retry(now), Retry::At(now + MS(expected)));
            now += MS(expected);
            assert_eq!(backoff.retry(now), Retry::Probe);
        }
        backoff.ready();
        assert_eq!(backoff.retry(now), Retry::Free);
        backoff.still_ready([now], now + LASTING - MS(1));
        assert_eq!(
            backoff.failed(now, NOWHERE, String::new(), now),
            MS(10_000),
            "a READY that does not last resets nothing"
        );
        backoff.still_ready([now], now + LASTING);
        assert_eq!(backoff.failed(now, NOWHERE, String::new(), now), MS(100));
    }

    #[test]
    fn batch_counts_once() {
        let start = Instant::now();
        let mut backoff = Backoff::default();
        assert_eq!(backoff.failed(start, NOWHERE, String::new(), start + MS(5)), MS(100));
        assert_eq!(backoff.failed(start, NOWHERE, String::new(), start + MS(6)), MS(100));
        assert!(backoff.hopeless(PATIENCE, start + MS(6)).is_none());
    }

    #[test]
    fn vm_that_was_ready_before_the_failure_proves_nothing() {
        let start = Instant::now();
        let mut backoff = Backoff::default();
        backoff.failed(start + MS(1), NOWHERE, "first".into(), start + MS(2000));
        backoff.still_ready([start], start + MS(5000));
        assert_eq!(backoff.failed(start + MS(5000), NOWHERE, "second".into(), start + MS(5000)), MS(200));
        assert_eq!(backoff.hopeless(PATIENCE, start + MS(5050)), Some(("second", MS(150))));
        assert_eq!(
            backoff.hopeless(PATIENCE, start + MS(5200)),
            None,
            "the next attempt is due: worth waiting for"
        );
    }

    #[test]
    fn vms_that_were_ready_are_never_hopeless_and_soon_tried_again() {
        let now = Instant::now();
        let mut backoff = Backoff::default();
        let delays: Vec<_> = (0..6).map(|_| backoff.failed(now, Came::ToReady, String::new(), now)).collect();
        assert_eq!(delays, [100, 200, 400, 800, 1000, 1000].map(MS));
        assert_eq!(backoff.hopeless(PATIENCE, now), None);
        assert_eq!(backoff.failed(now, NOWHERE, String::new(), now), MS(6400));
        assert!(backoff.hopeless(PATIENCE, now).is_some());
    }

    #[test]
    fn requests_wait_for_a_host_that_fails_as_long_as_they_may() {
        let start = Instant::now();
        let (mut now, mut backoff) = (start, Backoff::default());
        let mut fail = |at: Duration| {
            now = start + at;
            let delay = backoff.failed(now, Came::NotIntoBeing, "no memory".to_owned(), now);
            (delay, backoff.hopeless(PATIENCE, now).is_some())
        };
        let delays: Vec<_> = (0..6).map(|_| fail(Duration::ZERO)).collect();
        assert_eq!(delays, [100, 200, 400, 800, 1000, 1000].map(|delay| (MS(delay), false)));
        assert_eq!(fail(PATIENCE - MS(1)), (MS(1000), false));
        assert_eq!(fail(PATIENCE), (MS(1000), true));
        backoff.ready();
        backoff.failed(start + PATIENCE * 2, Came::NotIntoBeing, String::new(), start + PATIENCE * 2);
        assert_eq!(backoff.hopeless(PATIENCE, start + PATIENCE * 2), None, "it could, meanwhile");
    }

    #[test]
    fn what_the_host_cannot_do_follows_upon_what_the_guest_did() {
        let (start, mut backoff) = (Instant::now(), Backoff::default());
        let later = start + PATIENCE * 2;
        backoff.failed(start, NOWHERE, String::new(), start);
        backoff.failed(later, Came::NotIntoBeing, String::new(), later);
        assert_eq!(backoff.hopeless(PATIENCE, later), None, "the host has just begun to fail");
        backoff.failed(later, NOWHERE, String::new(), later);
        backoff.failed(later + MS(1), NOWHERE, "guest".into(), later + MS(1));
        assert!(backoff.hopeless(PATIENCE, later + MS(1)).is_some());
    }
}
