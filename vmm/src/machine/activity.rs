//! Whether the guest does anything that nobody asked it for: what "idle" means where requests do not tell.
//!
//! ```text
//!          a frame was received           PARK: an answer, unless it took LONG_RUN
//!        ┌──────────────────────> Answers ────────────────────────────────────────────┐
//! Parked ┤                                                                            ├──> Parked
//!        └──────────────────────> Acts ───────────────────────────────────────────────┘
//!          the time it had set            PARK: counts as a wake with its CPU time
//! ```
//!
//! Everybody wakes up now and then: to look after its connections, to give memory back. So what a guest does of its
//! own accord is work only beyond [`OWN_CPU`] or [`OWN_WAKES`] within a [`WINDOW`]; and what host's frames have it do
//! (health checks, the end of a connection) is not, or every check would keep the VM that it checks. A frame that it
//! sends is an answer for [`REPLY`] after one that it received, for acknowledgements may take their time; later it is
//! its own. The thread's CPU clock takes a system call, so it is not read where requests are answered.

use std::time::{Duration, Instant};

use crate::virtio::Progress;

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
    window: Window,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// `answered`: what it did before was an answer.
    Parked { answered: bool },
    /// It runs since then because of a frame.
    Answers { since: Instant },
    /// It runs since then of its own accord; `cpu` is what the thread's CPU clock was.
    Acts { since: Instant, cpu: Duration },
}

/// What it did of its own accord within the present window.
#[derive(Debug)]
struct Window {
    since: Instant,
    cpu: Duration,
    wakes: u32,
    /// It worked in the one before: then whatever it does goes on with that.
    goes_on: bool,
}

impl Activity {
    /// Of a guest that begins now; its start was asked for.
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            state: State::Answers { since: now },
            heard_at: None,
            worked_at: now,
            window: Window::new(now, false),
        }
    }

    /// It parks, not only to yield.
    pub(crate) fn parks(&mut self, now: Instant) {
        self.parks_at(now, cpu_time);
    }

    fn parks_at(&mut self, now: Instant, cpu: impl FnOnce() -> Duration) {
        let spent = self.spent(cpu);
        if self.works(now, spent) {
            self.worked_at = now;
        }
        let answered = self.answers();
        if !answered {
            self.window.add(now, spent);
        }
        self.state = State::Parked { answered };
    }

    /// It runs because weir wants it to.
    pub(crate) fn is_asked(&mut self, now: Instant) {
        self.state = State::Answers { since: now };
    }

    /// It runs because the time that it set has come.
    pub(crate) fn wakes(&mut self, now: Instant) {
        self.wakes_at(now, cpu_time);
    }

    fn wakes_at(&mut self, now: Instant, cpu: impl FnOnce() -> Duration) {
        self.state = State::Acts { since: now, cpu: cpu() };
    }

    /// It runs because the device has something for it; buffers that come back belong to what it did before.
    pub(crate) fn served(&mut self, progress: &Progress, now: Instant) {
        if progress.rx_delivered > 0 || self.answers() {
            self.is_asked(now);
        } else {
            self.wakes(now);
        }
    }

    fn answers(&self) -> bool {
        matches!(self.state, State::Parked { answered: true } | State::Answers { .. })
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
        self.quiet_at(now, cpu_time)
    }

    fn quiet_at(&mut self, now: Instant, cpu: impl FnOnce() -> Duration) -> Duration {
        if self.works(now, self.spent(cpu)) {
            self.worked_at = now;
        }
        now.saturating_duration_since(self.worked_at)
    }

    /// CPU time of what it does now of its own accord.
    fn spent(&self, now: impl FnOnce() -> Duration) -> Duration {
        match self.state {
            State::Acts { cpu, .. } => now().saturating_sub(cpu),
            State::Parked { .. } | State::Answers { .. } => Duration::ZERO,
        }
    }

    /// Whether what it does now, and has had this CPU time, is work.
    fn works(&self, now: Instant, spent: Duration) -> bool {
        match self.state {
            State::Parked { .. } => false,
            State::Answers { since } => now.saturating_duration_since(since) >= LONG_RUN,
            State::Acts { since, .. } => {
                now.saturating_duration_since(since) >= LONG_RUN || self.window.is_work(now, spent)
            }
        }
    }
}

impl Window {
    fn new(since: Instant, goes_on: bool) -> Self {
        Self { since, cpu: Duration::ZERO, wakes: 0, goes_on }
    }

    /// The one of `now`.
    fn at(&self, now: Instant) -> Self {
        let passed = now.saturating_duration_since(self.since);
        if passed < WINDOW {
            return Self { ..*self };
        }
        let worked = self.cpu >= OWN_CPU || self.wakes >= OWN_WAKES;
        Self::new(now, worked && passed < 2 * WINDOW)
    }

    /// Whether one more wake with this CPU time is work.
    fn is_work(&self, now: Instant, spent: Duration) -> bool {
        let Self { cpu, wakes, goes_on, .. } = self.at(now);
        goes_on || cpu + spent >= OWN_CPU || wakes + 1 >= OWN_WAKES
    }

    fn add(&mut self, now: Instant, spent: Duration) {
        *self = self.at(now);
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
