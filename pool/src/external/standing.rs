//! Whether one server is given requests, and when it is checked: pure, with the time passed in.

use std::time::Duration;

use tokio::time::Instant;
use weir_config::model::Health;

/// Who has been in service for so long is not held to what was before.
const LASTING: Duration = Duration::from_secs(60);

/// See [`super`] for the diagram.
#[derive(Debug)]
pub(super) struct Standing {
    /// Since when; `None`: it is out of service.
    in_service: Option<Instant>,
    /// Checks in a row that failed while it was in service.
    failed: u32,
    /// When it is to be checked; `None`: it is being.
    due: Option<Instant>,
    /// From one check to the next while it is out: short at first, so that a restart goes by unnoticed.
    pause: Duration,
}

/// What a check says of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    Well,
    /// It answers, but not as it should.
    Ill,
    /// It takes no connection.
    Unreachable,
    /// Nothing: the check could not be made.
    Nothing,
}

/// What follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Keep,
    /// It is out of service from now on.
    Eject,
    /// It is in service from now on.
    Admit,
}

impl Standing {
    /// Of a server that is new: out of service, and to be checked at `now`.
    pub(super) fn new(health: &Health, now: Instant) -> Self {
        Self { in_service: None, failed: 0, due: Some(now), pause: first_pause(health) }
    }

    pub(super) fn is_in_service(&self) -> bool {
        self.in_service.is_some()
    }

    /// Whether it is to be checked now; [`Self::found`] is to follow.
    pub(super) fn look(&mut self, now: Instant) -> bool {
        self.due.take_if(|due| *due <= now).is_some()
    }

    /// When it is to be checked next.
    pub(super) fn next(&self) -> Option<Instant> {
        self.due
    }

    /// What the check that [`Self::look`] asked for has found. `others`: whether others are in service; `next`: when it is
    /// due again if it is in service then.
    pub(super) fn found(
        &mut self,
        found: Found,
        others: bool,
        health: &Health,
        next: Instant,
        now: Instant,
    ) -> Verdict {
        self.due = Some(next);
        match (found, self.in_service) {
            (Found::Well, Some(_)) => self.failed = 0,
            (Found::Well, None) => {
                self.in_service = Some(now);
                return Verdict::Admit;
            }
            (Found::Ill | Found::Unreachable, Some(_)) => {
                self.failed = self.failed.saturating_add(1);
                // Who takes connections is better than nobody.
                let may_go = others || found == Found::Unreachable;
                if self.failed >= health.unhealthy_after && may_go {
                    self.eject(health, now);
                    return Verdict::Eject;
                }
            }
            (Found::Ill | Found::Unreachable, None) => {
                self.pause = longer(self.pause, health);
                self.due = Some(now + self.pause);
            }
            (Found::Nothing, None) => self.due = Some(now + self.pause),
            (Found::Nothing, Some(_)) => {}
        }
        Verdict::Keep
    }

    /// It is out of service from now on, if it was not.
    pub(super) fn eject(&mut self, health: &Health, now: Instant) {
        let Some(since) = self.in_service.take() else { return };
        let lasted = now.saturating_duration_since(since) >= LASTING;
        self.pause = if lasted { first_pause(health) } else { longer(self.pause, health) };
        self.failed = 0;
        // One that is being checked is due when that has ended.
        self.due = self.due.map(|_| now + self.pause);
    }

    /// To be checked at `now`, if it is not being.
    pub(super) fn hurry(&mut self, now: Instant) {
        self.due = self.due.map(|due| due.min(now));
    }
}

fn first_pause(health: &Health) -> Duration {
    health.interval / 16
}

fn longer(pause: Duration, health: &Health) -> Duration {
    (pause * 2).min(health.interval)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEALTH: Health = Health {
        path: None,
        timeout: Duration::from_secs(1),
        interval: Duration::from_secs(16),
        unhealthy_after: 3,
    };
    const SECOND: Duration = Duration::from_secs(1);

    fn check(standing: &mut Standing, found: Found, others: bool, now: Instant) -> Verdict {
        assert!(standing.look(now));
        standing.found(found, others, &HEALTH, now + HEALTH.interval, now)
    }

    /// One that is in service since `now`.
    fn admitted(now: Instant) -> Standing {
        let mut standing = Standing::new(&HEALTH, now);
        assert_eq!(check(&mut standing, Found::Well, false, now), Verdict::Admit);
        standing
    }

    #[test]
    fn who_is_out_is_asked_soon_and_then_less_and_less_often() {
        let mut now = Instant::now();
        let mut standing = Standing::new(&HEALTH, now);
        let mut pauses = Vec::new();
        for _ in 0..6 {
            assert_eq!(check(&mut standing, Found::Unreachable, false, now), Verdict::Keep);
            pauses.push((standing.next().unwrap() - now).as_secs());
            assert!(!standing.look(now));
            now = standing.next().unwrap();
        }
        assert_eq!(pauses, [2, 4, 8, 16, 16, 16]);
        assert_eq!(check(&mut standing, Found::Well, false, now), Verdict::Admit);
        assert_eq!(standing.next(), Some(now + HEALTH.interval));
    }

    #[test]
    fn who_comes_and_goes_stays_out_longer_each_time() {
        let mut now = Instant::now();
        let mut standing = admitted(now);
        let mut pauses = Vec::new();
        for stay in [0, 0, 59, 60, 0] {
            now += SECOND * stay;
            standing.eject(&HEALTH, now);
            pauses.push((standing.next().unwrap() - now).as_secs());
            now = standing.next().unwrap();
            assert_eq!(check(&mut standing, Found::Well, false, now), Verdict::Admit);
        }
        assert_eq!(pauses, [2, 4, 8, 1, 2]);
    }

    #[test]
    fn the_last_one_stays_unless_it_takes_no_connection() {
        let mut now = Instant::now();
        for (found, others, expected) in [
            (Found::Ill, true, Verdict::Eject),
            (Found::Ill, false, Verdict::Keep),
            (Found::Unreachable, false, Verdict::Eject),
            (Found::Nothing, true, Verdict::Keep),
        ] {
            let mut standing = admitted(now);
            let verdicts: Vec<_> = (0..HEALTH.unhealthy_after)
                .map(|_| {
                    now += HEALTH.interval;
                    check(&mut standing, found, others, now)
                })
                .collect();
            assert_eq!(verdicts, [Verdict::Keep, Verdict::Keep, expected], "{found:?} {others}");
        }
    }

    #[test]
    fn a_check_that_is_under_way_is_not_repeated_whatever_comes_meanwhile() {
        let now = Instant::now();
        let mut standing = admitted(now);
        assert!(standing.look(now + HEALTH.interval));
        standing.eject(&HEALTH, now);
        standing.hurry(now);
        assert_eq!((standing.look(now + HEALTH.interval * 9), standing.next()), (false, None));
        assert_eq!(standing.found(Found::Well, true, &HEALTH, now, now), Verdict::Admit);
    }

    proptest! {
        // In service is who was admitted last, and out who was ejected last; and there is always a next check.
        #[test]
        fn verdicts_say_what_the_standing_is(steps in proptest::collection::vec((0..5u8, any::<bool>(), 0..70u64), 0..60)) {
            let mut now = Instant::now();
            let mut standing = Standing::new(&HEALTH, now);
            let mut expected = false;
            for (step, others, pause) in steps {
                now += SECOND * u32::try_from(pause).unwrap();
                if step == 4 {
                    standing.eject(&HEALTH, now);
                    expected = false;
                } else if standing.look(now) {
                    let found = [Found::Well, Found::Ill, Found::Unreachable, Found::Nothing][usize::from(step)];
                    match standing.found(found, others, &HEALTH, now + HEALTH.interval, now) {
                        Verdict::Keep => {}
                        Verdict::Admit => {
                            prop_assert!(!expected && found == Found::Well);
                            expected = true;
                        }
                        Verdict::Eject => {
                            prop_assert!(expected && found != Found::Well && (others || found == Found::Unreachable));
                            expected = false;
                        }
                    }
                }
                prop_assert_eq!(standing.is_in_service(), expected);
                let next = standing.next();
                prop_assert!(next.is_some_and(|next| next <= now + HEALTH.interval));
            }
        }
    }
}
