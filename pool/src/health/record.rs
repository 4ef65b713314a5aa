//! What is known of one VM's health, and what follows: pure, with the time passed in.

use std::time::Duration;

use tokio::time::Instant;
use weir_config::model::Health;

use super::Finding;
use super::signs::Seen;

/// So many times in a row nothing of a VM must answer until it is given up: once may be the host's doing, which was
/// busy or asleep itself.
const LOST: u32 = 2;
/// For so long a VM out of service may answer no connection while requests wait for it; what these wait at most for
/// the next byte.
const GRACE: Duration = Duration::from_secs(60);

/// A VM that is well and gets no requests is checked twice as rarely each time, down to once in so many intervals: to
/// check thousands of idle VMs takes CPUs from those that work.
const SLOWEST: u32 = 12;

/// One VM's record.
#[derive(Debug)]
pub(super) struct Record {
    /// When it is to be checked next.
    due: Instant,
    /// Why it is being checked now.
    asked: Option<Why>,
    /// The last check that found something was a good one.
    well: bool,
    /// Scheduled checks in a row that failed.
    failed: u32,
    /// Checks in a row that nothing answered.
    lost: u32,
    /// Since when its guest has answered no check.
    silent_since: Option<Instant>,
    /// Answers to requests at the last look.
    heard: u64,
    /// Since when requests have waited and none got an answer.
    stalled_since: Option<Instant>,
    /// Checks in a row that were good ones, and before which there was no request.
    unused: u32,
}

/// Why a VM is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    /// It was time.
    Due,
    /// Requests wait for it and hear nothing: they may be slow, so this counts only if the VM is lost.
    Stalled,
}

/// What is to become of a VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Keep,
    /// It should get no more requests.
    Eject,
    /// It should end, whatever requests it has.
    Kill,
}

impl Record {
    /// Of a VM that is first checked at `due`.
    pub(super) fn new(due: Instant) -> Self {
        Self {
            due,
            asked: None,
            well: false,
            failed: 0,
            lost: 0,
            silent_since: None,
            heard: 0,
            stalled_since: None,
            unused: 0,
        }
    }

    /// It is checked again by then, if not before.
    pub(super) fn due_by(&mut self, by: Instant) {
        self.due = self.due.min(by);
    }

    /// How many intervals lie between the check that has just been made and the next.
    fn intervals(&mut self) -> u32 {
        let intervals = 1u32.checked_shl(self.unused).unwrap_or(SLOWEST).min(SLOWEST);
        let is_well = self.well && self.failed == 0 && self.lost == 0 && self.stalled_since.is_none();
        self.unused = if is_well { self.unused.saturating_add(1) } else { 0 };
        if is_well { intervals } else { 1 }
    }

    /// Whether its last check was a good one; it has had none: no.
    pub(super) fn is_well(&self) -> bool {
        self.well
    }

    /// Whether it is to be checked now. A check that is under way is not repeated.
    pub(super) fn look(&mut self, seen: Seen, health: &Health, now: Instant) -> bool {
        let stalled = seen.awaiting && seen.heard == self.heard;
        if seen.busy || seen.heard != self.heard {
            self.unused = 0;
            self.due = self.due.min(now + health.interval);
        }
        self.heard = seen.heard;
        self.stalled_since = stalled.then(|| self.stalled_since.unwrap_or(now));
        if self.asked.is_some() {
            return false;
        }
        let is_stalled = self.stalled_since.is_some_and(|since| now >= since + stall(health));
        self.asked = if now >= self.due {
            Some(Why::Due)
        } else {
            (is_stalled || self.lost > 0).then_some(Why::Stalled)
        };
        self.asked.is_some()
    }

    /// What the check that [`Self::look`] asked for has found. `in_service`: it is given requests; `next`: when it is due
    /// again if it is in use.
    pub(super) fn found(
        &mut self,
        finding: Finding,
        in_service: bool,
        health: &Health,
        next: Instant,
        now: Instant,
    ) -> Verdict {
        let is_due = self.asked.take() == Some(Why::Due);
        self.stalled_since = self.stalled_since.map(|_| now);
        if finding == Finding::Unknown {
            self.due = if is_due { next } else { self.due };
            return Verdict::Keep;
        }
        self.well = finding == Finding::Well;
        match finding {
            Finding::Unknown => {}
            Finding::Well => (self.failed, self.lost, self.silent_since) = (0, 0, None),
            Finding::Lost => self.lost = self.lost.saturating_add(1),
            Finding::Unwell | Finding::Silent => {
                self.lost = 0;
                self.failed = self.failed.saturating_add(is_due.into());
                let since = self.silent_since.unwrap_or(now);
                self.silent_since = (finding == Finding::Silent).then_some(since);
            }
        }
        if is_due {
            self.due = now + next.saturating_duration_since(now) * self.intervals();
        }
        self.verdict(in_service, health, now)
    }

    fn verdict(&self, in_service: bool, health: &Health, now: Instant) -> Verdict {
        let silent_for = self.silent_since.map(|since| now.saturating_duration_since(since));
        if self.lost >= LOST || !in_service && silent_for.is_some_and(|silent| silent >= GRACE) {
            return Verdict::Kill;
        }
        if in_service && self.failed >= health.unhealthy_after { Verdict::Eject } else { Verdict::Keep }
    }
}

/// For how long requests may wait in vain until their VM is checked.
fn stall(health: &Health) -> Duration {
    (health.timeout / 2).min(health.interval)
}

/// How often VMs are looked at.
pub(super) fn tick(health: &Health) -> Duration {
    const SHORTEST: Duration = Duration::from_millis(10);
    (health.timeout / 4).min(health.interval).max(SHORTEST)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const QUIET: Seen = Seen { awaiting: false, heard: 0, busy: false };
    const STALLED: Seen = Seen { awaiting: true, heard: 0, busy: true };

    fn due(record: &mut Record, finding: Finding, health: &Health, now: Instant) -> Verdict {
        assert!(record.look(QUIET, health, now));
        record.found(finding, true, health, now + health.interval, now)
    }

    #[test]
    fn so_many_in_a_row_and_a_good_one_wipes_the_slate() {
        let (health, mut now) = (Health::default(), Instant::now());
        let mut record = Record::new(now);
        let mut check = |finding| {
            let verdict = due(&mut record, finding, &health, now);
            now += health.interval;
            verdict
        };
        use Finding::{Silent, Unknown, Unwell, Well};
        let verdicts = [Unwell, Silent, Well, Unwell, Unwell, Unknown, Silent, Unwell].map(&mut check);
        use Verdict::{Eject, Keep};
        assert_eq!(verdicts, [Keep, Keep, Keep, Keep, Keep, Keep, Eject, Eject], "until it is ejected");
    }

    #[test]
    fn who_gets_no_requests_is_checked_rarely_until_there_is_one() {
        let (health, mut now) = (Health::default(), Instant::now());
        let mut record = Record::new(now);
        let mut pauses = Vec::new();
        for _ in 0..6 {
            assert_eq!(due(&mut record, Finding::Well, &health, now), Verdict::Keep);
            pauses.push((record.due - now).as_secs() / health.interval.as_secs());
            now = record.due;
        }
        assert_eq!(pauses, [1, 2, 4, 8, 12, 12]);
        record.due = now + health.interval * 12;
        let used = Seen { heard: 1, ..QUIET };
        assert!(!record.look(used, &health, now));
        now += health.interval;
        assert!(record.look(used, &health, now), "an interval after the request");
        record.found(Finding::Unwell, true, &health, now + health.interval, now);
        assert_eq!(record.due, now + health.interval, "nor where it is not well");
    }

    #[test]
    fn a_stalled_vm_is_checked_at_once_and_killed_only_if_it_is_lost() {
        let (health, now) = (Health::default(), Instant::now());
        let mut record = Record::new(now + health.interval);
        assert!(!record.look(STALLED, &health, now));
        assert!(!record.look(STALLED, &health, now + SECOND / 4));
        assert!(record.look(STALLED, &health, now + SECOND / 2));
        assert!(!record.look(STALLED, &health, now + SECOND), "one check at a time");
        let mut at = now + SECOND;
        for _ in 0..10 {
            let slow = record.found(Finding::Silent, true, &health, at, at);
            assert_eq!(slow, Verdict::Keep, "it is slow");
            assert!(!record.look(STALLED, &health, at + SECOND / 4));
            assert!(record.look(STALLED, &health, at + SECOND / 2));
            at += SECOND / 4;
        }
        assert_eq!(record.found(Finding::Lost, true, &health, at, at), Verdict::Keep);
        assert!(record.look(QUIET, &health, at), "again, and at once");
        assert_eq!(record.found(Finding::Lost, true, &health, at, at), Verdict::Kill);
    }

    #[test]
    fn who_answers_others_is_not_stalled() {
        let (health, now) = (Health { interval: 60 * SECOND, ..Health::default() }, Instant::now());
        let mut record = Record::new(now + 60 * SECOND);
        for heard in 0..50 {
            let at = now + SECOND / 4 * u32::try_from(heard).unwrap();
            assert!(!record.look(Seen { heard, ..STALLED }, &health, at));
        }
    }

    #[test]
    fn out_of_service_only_lasting_silence_kills() {
        let (health, now) = (Health::default(), Instant::now());
        let mut record = Record::new(now);
        let mut check = |finding, after: Duration| {
            let at = now + after;
            assert!(record.look(QUIET, &health, at));
            record.found(finding, false, &health, at, at)
        };
        assert_eq!(check(Finding::Unwell, SECOND), Verdict::Keep);
        assert_eq!(check(Finding::Silent, 2 * SECOND), Verdict::Keep);
        assert_eq!(check(Finding::Unwell, 61 * SECOND), Verdict::Keep, "it lives");
        assert_eq!(check(Finding::Silent, 62 * SECOND), Verdict::Keep);
        assert_eq!(check(Finding::Silent, 62 * SECOND + GRACE), Verdict::Kill);
    }

    fn finding() -> impl Strategy<Value = Finding> {
        prop_oneof![
            Just(Finding::Well),
            Just(Finding::Unwell),
            Just(Finding::Silent),
            Just(Finding::Lost),
            Just(Finding::Unknown)
        ]
    }

    proptest! {
        /// Against the rules said in words, over the whole history.
        #[test]
        fn verdicts_follow_from_the_history(
            findings in proptest::collection::vec((finding(), any::<bool>()), 1..60),
            unhealthy_after in 1..5u32,
        ) {
            let health = Health { unhealthy_after, ..Health::default() };
            let mut now = Instant::now();
            let mut record = Record::new(now);
            let mut history = Vec::new();
            for (finding, is_due) in findings {
                now += if is_due { health.interval } else { SECOND / 2 };
                record.due = if is_due { now } else { now + SECOND };
                record.stalled_since = Some(now - SECOND);
                prop_assert!(record.look(STALLED, &health, now));
                let verdict = record.found(finding, true, &health, now + SECOND, now);
                if finding == Finding::Unknown {
                    prop_assert_eq!(verdict, Verdict::Keep);
                    continue;
                }
                history.push((finding, is_due));
                let since_well = history.rsplit(|(finding, _)| *finding == Finding::Well).next().unwrap();
                let failed = since_well.iter().filter(|(finding, is_due)| *is_due && *finding != Finding::Lost);
                let lost = history.iter().rev().take_while(|(finding, _)| *finding == Finding::Lost).count();
                let expected = match () {
                    () if lost >= 2 => Verdict::Kill,
                    () if failed.count() >= unhealthy_after as usize => Verdict::Eject,
                    () => Verdict::Keep,
                };
                prop_assert_eq!(verdict, expected, "{:?}", history);
                if verdict == Verdict::Kill {
                    break;
                }
            }
        }
    }
}
