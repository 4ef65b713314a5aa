//! When a certificate is to be obtained. Nothing here reads a clock or throws dice.
//!
//! ```text
//!  none, or for other names ──────────────> due at once
//!  in use ──two thirds of its lifetime──> due
//!                       due ──obtained──> in use
//!                       due ──failed────> waits, twice as long each time ──> due
//! ```
//!
//! CAs limit how often a name may fail: Let's Encrypt to five times an hour. So the first wait is as long as a failure
//! needs there to be forgotten, and no wait is shorter.

use std::time::{Duration, SystemTime};

/// Wait after the first failure.
pub(super) const SHORTEST_WAIT: Duration = Duration::from_secs(12 * 60);
/// No wait is longer, unless the CA asks for it.
const LONGEST_WAIT: Duration = Duration::from_secs(24 * 3600);
/// What a CA can ask for.
pub(super) const LONGEST_ASKED: Duration = Duration::from_secs(7 * 24 * 3600);
/// Part of a lifetime by which renewals are spread, so that not all are due at once.
const RENEWALS_SPREAD: f64 = 0.02;
/// Part of a wait by which tries are spread.
const WAITS_SPREAD: f64 = 0.1;

/// The certificate that there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Held {
    /// It is for the names that are wanted, all of them and no others.
    pub(super) as_wanted: bool,
    pub(super) begins: SystemTime,
    pub(super) expires: SystemTime,
}

/// What has failed since a certificate was obtained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Failed {
    /// At least one.
    pub(super) times: u32,
    pub(super) last: SystemTime,
    /// The CA has asked not to be asked for this long.
    pub(super) asked_to_wait: Option<Duration>,
}

impl Failed {
    /// One failure more than `before`.
    pub(super) fn once_more(before: Option<Self>, at: SystemTime, asked_to_wait: Option<Duration>) -> Self {
        let times = before.map_or(0, |failed| failed.times).saturating_add(1);
        Self { times, last: at, asked_to_wait }
    }

    /// When the next try may be. `spread` is 0 to 1.
    fn over(&self, spread: f64) -> SystemTime {
        let doubled = 1_u32.checked_shl(self.times.saturating_sub(1).min(31)).unwrap_or(u32::MAX);
        let wait = SHORTEST_WAIT.saturating_mul(doubled).min(LONGEST_WAIT);
        let wait = wait.mul_f64(1.0 + WAITS_SPREAD * spread);
        let asked = self.asked_to_wait.unwrap_or_default().min(LONGEST_ASKED);
        self.last + wait.max(asked)
    }
}

/// When the next try is due, which may be long past. `spread`, 0 to 1, is the same each time for one certificate.
pub(super) fn due(held: Option<Held>, failed: Option<Failed>, spread: f64) -> SystemTime {
    let renewal = held.filter(|held| held.as_wanted).map_or(SystemTime::UNIX_EPOCH, |held| {
        let lifetime = held.expires.duration_since(held.begins).unwrap_or_default();
        held.begins + lifetime.mul_f64(2.0 / 3.0 - RENEWALS_SPREAD * spread)
    });
    failed.map_or(renewal, |failed| renewal.max(failed.over(spread)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn held() -> impl Strategy<Value = Held> {
        (any::<bool>(), 0_u64..4_000_000_000, 0_u64..40_000_000).prop_map(|(as_wanted, begins, lifetime)| {
            Held { as_wanted, begins: at(begins), expires: at(begins + lifetime) }
        })
    }

    proptest! {
        #[test]
        fn a_good_certificate_is_renewed_in_its_last_third_and_not_earlier(held in held(), spread in 0.0..=1.0) {
            let lifetime = held.expires.duration_since(held.begins).unwrap();
            let due = due(Some(held), None, spread);
            if held.as_wanted {
                prop_assert!(due >= held.begins + lifetime.mul_f64(0.64));
                prop_assert!(due <= held.begins + lifetime.mul_f64(0.67));
                prop_assert!(due <= held.expires);
            } else {
                prop_assert_eq!(due, SystemTime::UNIX_EPOCH);
            }
        }

        #[test]
        fn failures_are_waited_for_whatever_is_held(
            held in proptest::option::of(held()),
            times in 1_u32..,
            last in 0_u64..4_000_000_000,
            asked in proptest::option::of(any::<u64>()),
            spread in 0.0..=1.0,
        ) {
            let asked_to_wait = asked.map(Duration::from_secs);
            let failed = Failed { times, last: at(last), asked_to_wait };
            let due = due(held, Some(failed), spread);
            prop_assert!(due >= at(last) + SHORTEST_WAIT);
            prop_assert!(due >= at(last) + asked_to_wait.unwrap_or_default().min(LONGEST_ASKED));
            let longest = LONGEST_WAIT.mul_f64(1.1).max(asked_to_wait.unwrap_or_default()).min(LONGEST_ASKED);
            let renewal = super::due(held, None, spread);
            prop_assert!(due <= renewal.max(at(last) + longest), "it waits for ever");
        }

        #[test]
        fn no_hour_sees_more_than_five_failures_of_a_name(spread in 0.0..=1.0, first in 0_u64..4_000_000_000) {
            let (mut failed, mut tries) = (None, vec![]);
            for _ in 0..40 {
                let now = due(None, failed, spread).max(at(first));
                failed = Some(Failed::once_more(failed, now, None));
                tries.push(now);
            }
            prop_assert!(tries.windows(6).all(|tries| tries[5] >= tries[0] + Duration::from_secs(3600)));
            // It does not give up either.
            prop_assert!(tries.windows(2).all(|tries| tries[1] <= tries[0] + LONGEST_WAIT.mul_f64(1.1)));
        }
    }
}
