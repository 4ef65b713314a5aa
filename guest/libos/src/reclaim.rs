//! When to give memory back to the host.
//!
//! ```text
//!            work to do, or connections open                 quiet for QUIET, and WORTH of it
//!   busy <───────────────────────────────── quiet ──────────────────────────────────────────> discard, once
//!     └────────────────────────────────────>  ▲  nothing more to give: parks for ever
//! ```
//!
//! A discarded page costs an exit to give and a page fault to touch again, both on some request's way. So: only pages
//! that were used since the last time, only [`WORTH`] of them together, and only after a while in which nothing
//! happened; requests in quick succession never meet it. The exception is the first PARK after READY: what the
//! application needed to start only would otherwise be part of each clone's snapshot.

use core::time::Duration;

use crate::clock::Instant;

/// Less than this is not worth an exit, bytes.
pub(crate) const WORTH: usize = 64 * 1024;
/// How long nothing must have happened.
const QUIET: Duration = Duration::from_secs(1);

/// What to do before the next PARK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Advice {
    /// Nothing.
    Nothing,
    /// Come back at this time.
    At(Instant),
    /// Discard what is free.
    Now,
}

/// Since when nothing happens.
#[derive(Debug, Default)]
pub(crate) struct Reclaim {
    quiet_since: Option<Instant>,
    /// The first PARK after READY is past.
    settled: bool,
}

impl Reclaim {
    /// Something happens: a task runs, or a connection is open.
    pub(crate) fn busy(&mut self) {
        self.quiet_since = None;
    }

    /// Nothing happens at `now` in an application that is `ready` (or not yet), and `free` bytes could be given back.
    pub(crate) fn quiet(&mut self, now: Instant, ready: bool, free: usize) -> Advice {
        let since = *self.quiet_since.get_or_insert(now);
        let first = ready && !self.settled;
        self.settled |= ready;
        let due = since + QUIET;
        match free {
            ..WORTH => Advice::Nothing,
            WORTH.. if first || now >= due => Advice::Now,
            WORTH.. => Advice::At(due),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn memory_goes_back_after_a_quiet_second_and_at_once_when_ready() {
        let mut reclaim = Reclaim::default();
        let at = |nanos| Instant::from_nanos(5 * SECOND + nanos);
        assert_eq!(reclaim.quiet(at(0), false, WORTH), Advice::At(at(SECOND)), "not ready yet");
        assert_eq!(reclaim.quiet(at(1), true, WORTH), Advice::Now);
        assert_eq!(reclaim.quiet(at(2), true, WORTH), Advice::At(at(SECOND)), "at once but once");
        assert_eq!(reclaim.quiet(at(SECOND - 1), true, WORTH), Advice::At(at(SECOND)));
        assert_eq!(reclaim.quiet(at(SECOND), true, WORTH), Advice::Now);
        assert_eq!(reclaim.quiet(at(SECOND), true, WORTH - 1), Advice::Nothing);
        reclaim.busy();
        assert_eq!(reclaim.quiet(at(2 * SECOND), true, usize::MAX), Advice::At(at(3 * SECOND)));
    }

    #[test]
    fn a_first_park_with_little_to_give_is_the_first_all_the_same() {
        let mut reclaim = Reclaim::default();
        let now = Instant::from_nanos(0);
        assert_eq!(reclaim.quiet(now, true, 0), Advice::Nothing);
        assert_eq!(reclaim.quiet(now, true, WORTH), Advice::At(now + QUIET));
    }
}
