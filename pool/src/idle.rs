//! True idle: a VM without requests may work all the same, so its process is asked before it is retired.
//!
//! ```text
//!                  to go                      says for how long its guest has been quiet
//!  unknown ──────────────────────> asked ─────────────────────────────────────────────────> known
//!     ^                              │ no answer within PATIENCE: busy, SILENCES times;        │
//!     │                              v beyond that nobody knows better than the requests      │
//!     └───────────────────────── (unknown) <──── answer older than FRESH, or than what it ────┘
//!                                                is to be known of
//! ```
//!
//! The answer moves the time since when the VM is idle; what goes is for [`crate::decide()`] to say. A quiet VM goes as
//! early as it would without the question; a working one is asked once in an idle timeout. Of VMs that go earlier,
//! because they are too many, one that worked within [`LULL`] stays, unless the host wants its memory back for others: it
//! takes the longest idle first, and a VM that works is the least.
//!
//! What a process says is believed, since it could have its guest work instead: neither gets it more than a place among
//! the pool's `max`, which is not demand.

use std::time::Duration;

use tokio::time::Instant;

/// How long a process may take to answer; it takes well under a millisecond where nothing is wrong.
pub(crate) const PATIENCE: Duration = Duration::from_secs(1);
/// For so long an answer holds.
const FRESH: Duration = Duration::from_secs(1);
/// A VM that has been quiet for so long may go before it is due.
pub(crate) const LULL: Duration = Duration::from_secs(1);
/// So many answers may be missing in a row before a VM that has no requests counts as idle nevertheless.
const SILENCES: u32 = 3;

/// What is known of one VM's work in the background.
#[derive(Debug, Default)]
pub(crate) struct Background {
    state: State,
    /// When it last did something of its own accord, as far as is known.
    worked_at: Option<Instant>,
    /// Answers missing in a row.
    silences: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Unknown,
    Asked {
        at: Instant,
    },
    Known {
        at: Instant,
    },
}

/// By what a VM is to go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rule {
    /// So long idle, it is due.
    pub(crate) idle_timeout: Duration,
    /// The host wants it back, due or not.
    pub(crate) reclaim: bool,
}

/// What may be done with a VM that is to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Retire it.
    Idle,
    /// Ask its process.
    Ask,
    /// Its guest works, or the answer is to come.
    Keep,
}

/// What an answer meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// The guest has done nothing for as long as the VM was thought to be idle.
    Quiet,
    /// It has.
    Working,
    /// There was none.
    Silent,
}

impl Found {
    /// Value of the `result` label of `weir_vm_idle_checks_total`.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Quiet => "quiet",
            Self::Working => "working",
            Self::Silent => "silent",
        }
    }
}

impl Background {
    /// What to do with the VM at `now`, which is to go and whose last request left at `used_until`. After
    /// [`Verdict::Ask`] the question is under way.
    pub(crate) fn verdict(&mut self, rule: Rule, used_until: Instant, now: Instant) -> Verdict {
        let idle_since = self.idle_since(used_until);
        let due = idle_since + rule.idle_timeout;
        let patience = if rule.reclaim { 0 } else { SILENCES };
        match self.state {
            State::Asked { .. } => Verdict::Keep,
            _ if self.silences > patience => Verdict::Idle,
            State::Known { at } if used_until <= at && now < at + FRESH => match () {
                () if rule.reclaim || due <= at => Verdict::Idle,
                // What it did since is not known.
                () if due <= now => self.ask(now),
                () if idle_since + LULL <= at => Verdict::Idle,
                () => Verdict::Keep,
            },
            State::Known { .. } | State::Unknown => self.ask(now),
        }
    }

    fn ask(&mut self, now: Instant) -> Verdict {
        self.state = State::Asked { at: now };
        Verdict::Ask
    }

    /// The answer, `None` if there was none in time, at `now` for a VM whose last request left at `used_until`.
    pub(crate) fn heard(
        &mut self,
        quiet: Option<Duration>,
        used_until: Instant,
        now: Instant,
    ) -> Option<Found> {
        let State::Asked { at } = self.state else { return None };
        let Some(quiet) = quiet else {
            self.state = State::Unknown;
            self.silences += 1;
            if self.silences <= SILENCES {
                self.worked_at = Some(now);
            }
            return Some(Found::Silent);
        };
        (self.state, self.silences) = (State::Known { at: now }, 0);
        // Not after it really was: the guest has been quiet for so long at some time after the question.
        let (before, worked_at) = (self.idle_since(used_until), at.checked_sub(quiet));
        self.worked_at = self.worked_at.max(worked_at);
        Some(if worked_at.is_some_and(|at| at > before) { Found::Working } else { Found::Quiet })
    }

    /// Since when the VM is idle, if its last request left at `used_until`.
    pub(crate) fn idle_since(&self, used_until: Instant) -> Instant {
        self.worked_at.map_or(used_until, |at| at.max(used_until))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const RULE: Rule = Rule { idle_timeout: Duration::from_secs(30), reclaim: false };
    const RECLAIM: Rule = Rule { reclaim: true, ..RULE };

    /// A VM that has been without requests for 30 s now.
    fn due() -> (Background, Instant, Instant) {
        let used_until = Instant::now() + 1000 * SECOND;
        (Background::default(), used_until, used_until + 30 * SECOND)
    }

    #[test]
    fn a_quiet_vm_is_asked_once_and_may_go() {
        let (mut background, used_until, now) = due();
        assert_eq!(background.verdict(RULE, used_until, now), Verdict::Ask);
        assert_eq!(background.verdict(RULE, used_until, now), Verdict::Keep);
        let found = background.heard(Some(31 * SECOND), used_until, now);
        assert_eq!((found, background.verdict(RULE, used_until, now)), (Some(Found::Quiet), Verdict::Idle));
        assert_eq!(background.idle_since(used_until), used_until);
    }

    #[test]
    fn an_answer_does_not_hold_for_long_nor_beyond_a_request() {
        let (mut background, used_until, now) = due();
        background.verdict(RULE, used_until, now);
        background.heard(Some(31 * SECOND), used_until, now);
        assert_eq!(background.verdict(RULE, used_until, now + FRESH), Verdict::Ask);
        background.heard(Some(32 * SECOND), used_until, now + FRESH);
        let (used_until, now) = (now + FRESH + SECOND / 4, now + FRESH + SECOND / 2);
        assert_eq!(background.verdict(RULE, used_until, now), Verdict::Ask);
    }

    #[test]
    fn work_moves_the_time_since_when_it_is_idle() {
        let (mut background, used_until, now) = due();
        background.verdict(RULE, used_until, now);
        let found = background.heard(Some(12 * SECOND), used_until, now + SECOND / 2);
        assert_eq!(found, Some(Found::Working));
        assert_eq!(background.idle_since(used_until), now - 12 * SECOND);
        let later = now + 3 * SECOND;
        assert_eq!(background.idle_since(later), later, "a request came after that");
    }

    #[test]
    fn silence_keeps_a_vm_for_a_while_and_not_for_ever() {
        let (mut background, used_until, mut now) = due();
        for _ in 0..SILENCES {
            assert_eq!(background.verdict(RULE, used_until, now), Verdict::Ask);
            now += PATIENCE;
            assert_eq!(background.heard(None, used_until, now), Some(Found::Silent));
            assert_eq!(background.idle_since(used_until), now);
            now += 30 * SECOND;
        }
        assert_eq!(background.verdict(RULE, used_until, now), Verdict::Ask);
        background.heard(None, used_until, now + PATIENCE);
        assert_eq!(background.verdict(RULE, used_until, now + PATIENCE), Verdict::Idle);
        assert!(background.idle_since(used_until) + 30 * SECOND <= now, "it is due still");
    }

    #[test]
    fn an_answer_ends_a_silence_and_one_to_no_question_is_none() {
        let (mut background, used_until, now) = due();
        assert_eq!(background.heard(Some(Duration::ZERO), used_until, now), None);
        for _ in 0..SILENCES {
            background.verdict(RULE, used_until, now);
            background.heard(None, used_until, now);
        }
        background.verdict(RULE, used_until, now);
        background.heard(Some(Duration::MAX), used_until, now);
        assert_eq!(
            background.idle_since(used_until),
            now,
            "longer than time is, and no earlier than thought"
        );
        assert_eq!(background.verdict(RULE, used_until, now + FRESH), Verdict::Ask);
        background.heard(None, used_until, now + FRESH);
        assert_eq!(background.verdict(RULE, used_until, now + FRESH), Verdict::Ask, "counted anew");
    }

    #[test]
    fn an_answer_from_before_a_vm_was_due_does_not_tell_what_it_did_since() {
        let (mut background, used_until, now) = due();
        background.verdict(RULE, used_until, now);
        background.heard(Some(30 * SECOND - SECOND / 2), used_until, now);
        let later = now + SECOND / 2;
        assert_eq!(background.idle_since(used_until) + RULE.idle_timeout, later);
        assert_eq!(background.verdict(RULE, used_until, later), Verdict::Ask);
        background.heard(Some(30 * SECOND), used_until, later);
        assert_eq!(background.verdict(RULE, used_until, later), Verdict::Idle);
    }

    #[test]
    fn one_too_many_goes_before_it_is_due_if_its_guest_rests() {
        let used_until = Instant::now() + 1000 * SECOND;
        let verdict = |rule, quiet| {
            let (mut background, now) = (Background::default(), used_until + 5 * SECOND);
            assert_eq!(background.verdict(rule, used_until, now), Verdict::Ask);
            background.heard(quiet, used_until, now);
            background.verdict(rule, used_until, now)
        };
        assert_eq!(verdict(RULE, Some(2 * SECOND)), Verdict::Idle);
        assert_eq!(verdict(RULE, Some(SECOND / 2)), Verdict::Keep);
        assert_eq!(verdict(RULE, None), Verdict::Ask);
        assert_eq!(verdict(RECLAIM, Some(SECOND / 2)), Verdict::Idle);
        assert_eq!(verdict(RECLAIM, None), Verdict::Idle);
    }
}
