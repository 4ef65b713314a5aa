//! Whether the guest does anything that nobody asked it for: what "idle" means where requests do not tell.
//!
//! ```text
//!          a frame was received                             PARK: at most ANSWER of CPU time is an answer
//!        ┌──────────────────────> Running, asked ────────────────────────────────────────────┐
//! Parked ┤                                                                                   ├──> Parked
//!        └──────────────────────> Running, of its own accord ────────────────────────────────┘
//!          the time it had set                              PARK: counts as a wake with its CPU time
//! ```
//!
//! Everybody wakes up now and then: to look after its connections, to give memory back. So what a guest does of its
//! own accord is work only beyond [`OWN_CPU`] or [`OWN_WAKES`] within a [`WINDOW`]; and what host's frames have it do
//! (health checks, the end of a connection) is not, or every check would keep the VM that it checks. A frame that it
//! sends is an answer for [`REPLY`] after one that it received, for acknowledgements may take their time; later it is
//! its own. The costs are one reading of the thread's CPU clock per PARK, and nothing where a PARK only yields.

use std::time::{Duration, Instant};

use crate::virtio::Progress;

/// CPU time that one answer may take.
const ANSWER: Duration = Duration::from_millis(100);
/// Whatever woke it, a guest that has not parked for this long works.
const LONG_RUN: Duration = Duration::from_secs(1);
/// What a guest sends so long after it received something may be the answer.
const REPLY: Duration = Duration::from_millis(250);
/// Time over which its own doings are added up.
const WINDOW: Duration = Duration::from_secs(1);
/// CPU time within a window from which on it works.
const OWN_CPU: Duration = Duration::from_millis(5);
/// Wakes within a window from which on it works.
const OWN_WAKES: u32 = 10;

/// What a guest has done lately, on the vCPU's thread's clocks.
#[derive(Debug)]
pub(crate) struct Activity {
    state: State,
    /// When it last got a frame.
    heard_at: Option<Instant>,
    /// When it last did something of its own accord.
    worked_at: Instant,
    /// CPU time of the thread when the guest last parked.
    cpu: Duration,
    window: Window,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// `asked`: what it did before was.
    Parked {
        asked: bool,
    },
    Running {
        since: Instant,
        asked: bool,
    },
}

/// What it did of its own accord within the present window.
#[derive(Debug)]
struct Window {
    since: Instant,
    cpu: Duration,
    wakes: u32,
}

impl Activity {
    /// Of a guest that begins now; its start was asked for.
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            state: State::Running { since: now, asked: true },
            heard_at: None,
            worked_at: now,
            cpu: cpu_time(),
            window: Window { since: now, cpu: Duration::ZERO, wakes: 0 },
        }
    }

    /// It parks, not only to yield.
    pub(crate) fn parks(&mut self, now: Instant) {
        self.parks_with(now, cpu_time());
    }

    fn parks_with(&mut self, now: Instant, cpu: Duration) {
        let spent = cpu.saturating_sub(self.cpu);
        if self.works(now, spent) {
            self.worked_at = now;
        }
        let asked = self.was_asked();
        if !asked {
            self.window.add(now, spent);
        }
        (self.state, self.cpu) = (State::Parked { asked }, cpu);
    }

    /// It runs again; `asked`: somebody else than itself had it woken.
    pub(crate) fn wakes(&mut self, now: Instant, asked: bool) {
        self.state = State::Running { since: now, asked };
    }

    /// The device had something for it; buffers that come back belong to what it did before.
    pub(crate) fn served(&mut self, progress: &Progress, now: Instant) {
        self.wakes(now, progress.rx_delivered > 0 || self.was_asked());
    }

    fn was_asked(&self) -> bool {
        let (State::Parked { asked } | State::Running { asked, .. }) = self.state;
        asked
    }

    /// The network device moved something.
    pub(crate) fn moved(&mut self, progress: &Progress, now: Instant) {
        // First: what it sent was sent before it saw what came.
        let answers = self.heard_at.is_some_and(|at| now.saturating_duration_since(at) < REPLY);
        if progress.tx_completed > 0 && !answers {
            self.worked_at = now;
        }
        if progress.rx_delivered > 0 {
            self.heard_at = Some(now);
        }
    }

    /// For how long it has done nothing of its own accord.
    pub(crate) fn quiet(&mut self, now: Instant) -> Duration {
        self.quiet_with(now, cpu_time())
    }

    fn quiet_with(&mut self, now: Instant, cpu: Duration) -> Duration {
        if self.works(now, cpu.saturating_sub(self.cpu)) {
            self.worked_at = now;
        }
        now.saturating_duration_since(self.worked_at)
    }

    /// Whether what runs now, and has had this CPU time, is work.
    fn works(&self, now: Instant, spent: Duration) -> bool {
        match self.state {
            State::Parked { .. } => false,
            State::Running { since, .. } if now.saturating_duration_since(since) >= LONG_RUN => true,
            State::Running { asked: true, .. } => spent >= ANSWER,
            State::Running { asked: false, .. } => self.window.is_full_with(now, spent),
        }
    }
}

impl Window {
    fn is_over(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) >= WINDOW
    }

    /// Whether one more wake with this CPU time makes it work.
    fn is_full_with(&self, now: Instant, spent: Duration) -> bool {
        let (cpu, wakes) = if self.is_over(now) { (Duration::ZERO, 0) } else { (self.cpu, self.wakes) };
        cpu + spent >= OWN_CPU || wakes + 1 >= OWN_WAKES
    }

    fn add(&mut self, now: Instant, spent: Duration) {
        if self.is_over(now) {
            *self = Self { since: now, cpu: Duration::ZERO, wakes: 0 };
        }
        self.cpu += spent;
        self.wakes = self.wakes.saturating_add(1);
    }
}

/// CPU time of the calling thread. Not through the vDSO, which does not have it.
fn cpu_time() -> Duration {
    use nix::time::{ClockId, clock_gettime};
    // It fails for clocks that do not exist only.
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}

#[cfg(test)]
mod tests;
