//! A pool's circuit breaker: a pool that fails its requests gets none for a while, so that clients have an answer at once,
//! and what is behind it time to recover.
//!
//! ```text
//!             failures in one window, and as large a part of it
//!   closed ─────────────────────────────────────────────────────> open: 503 at once, nobody is woken
//!     ^                                                            ^  │ open_for is over, and a request comes
//!     │ all of `half_open` requests succeed                one fails │  v
//!     └──────────────────────────────────────────────────────── half open: so many are let in, the others 503
//! ```
//!
//! A failure is what retries and health take for one: no connection, one that breaks before an answer, no answer in time; and a
//! status from 500 on where that is asked for. An answer counts when it begins. Each try counts. A request whose client goes
//! away, or that finds no VM with room, says nothing.
//!
//! The whole state is one atomic word ([`state`]), so that a request through a closed breaker costs one load and one exchange.

mod state;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use prometheus::{IntCounter, IntGauge};
use weir_config::model;

use crate::answer::Refusal;
use state::{Limits, Phase, State, milliseconds};

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Breaker {
    word: AtomicU64,
    limits: Limits,
    /// Statuses from 500 on are failures.
    pub(crate) server_errors: bool,
    max_in_flight: u32,
    in_flight: AtomicU32,
    series: BreakerSeries,
}

/// What it tells Prometheus.
#[derive(Debug)]
pub(crate) struct BreakerSeries {
    /// 0: closed, 1: half open, 2: open.
    pub(crate) state: IntGauge,
    pub(crate) opened: IntCounter,
}

/// A try's leave to go to the pool. Dropped before it was settled, it says nothing of the pool.
#[derive(Debug)]
pub(crate) struct Permit {
    breaker: Arc<Breaker>,
    era: u16,
    settled: bool,
}

impl Breaker {
    pub(crate) fn new(config: &model::Breaker, series: BreakerSeries) -> Arc<Self> {
        series.state.set(0);
        Arc::new(Self {
            word: AtomicU64::new(State::NEW.pack()),
            limits: Limits::new(config),
            server_errors: config.server_errors,
            max_in_flight: config.max_in_flight.unwrap_or(u32::MAX),
            in_flight: AtomicU32::new(0),
            series,
        })
    }

    /// Lets a try in at `now`, which counts from some beginning, or refuses it.
    pub(crate) fn admit(self: &Arc<Self>, now: Duration) -> Result<Permit, Refusal> {
        if self.in_flight.fetch_add(1, SeqCst) >= self.max_in_flight {
            self.in_flight.fetch_sub(1, SeqCst);
            return Err(Refusal::PoolFull);
        }
        let now = milliseconds(now);
        let mut word = self.word.load(SeqCst);
        loop {
            let state = State::unpack(word);
            let admitted = match state.admit(now, &self.limits) {
                Ok(admitted) => admitted,
                Err(wait) => {
                    self.in_flight.fetch_sub(1, SeqCst);
                    // In whole seconds, as Retry-After wants it.
                    return Err(Refusal::CircuitOpen(Duration::from_secs(wait.div_ceil(1000))));
                }
            };
            if admitted == state {
                return Ok(Permit { breaker: Arc::clone(self), era: state.era, settled: false });
            }
            match self.word.compare_exchange_weak(word, admitted.pack(), SeqCst, SeqCst) {
                Ok(_) => {
                    self.show();
                    return Ok(Permit { breaker: Arc::clone(self), era: admitted.era, settled: false });
                }
                Err(other) => word = other,
            }
        }
    }

    fn update(&self, change: impl Fn(State) -> State) {
        let mut word = self.word.load(SeqCst);
        loop {
            let (before, after) = (State::unpack(word), change(State::unpack(word)));
            if before == after {
                return;
            }
            match self.word.compare_exchange_weak(word, after.pack(), SeqCst, SeqCst) {
                Ok(_) if before.era == after.era => return,
                Ok(_) => {
                    if matches!(after.phase, Phase::Open { .. }) {
                        self.series.opened.inc();
                    }
                    return self.show();
                }
                Err(other) => word = other,
            }
        }
    }

    /// Until what is shown is what is so: several may change it at once.
    fn show(&self) {
        loop {
            let era = State::unpack(self.word.load(SeqCst)).era;
            self.series.state.set(match State::unpack(self.word.load(SeqCst)).phase {
                Phase::Closed { .. } => 0,
                Phase::HalfOpen { .. } => 1,
                Phase::Open { .. } => 2,
            });
            if State::unpack(self.word.load(SeqCst)).era == era {
                return;
            }
        }
    }
}

impl Permit {
    /// The try has turned out so, at `now`. Only the first time counts.
    pub(crate) fn settle(&mut self, success: bool, now: Duration) {
        if !std::mem::replace(&mut self.settled, true) {
            let (now, limits) = (milliseconds(now), &self.breaker.limits);
            self.breaker.update(|state| state.ended(self.era, success, now, limits));
        }
    }

    /// Whether an answer with a status from 500 on is a failure.
    pub(crate) fn counts_server_errors(&self) -> bool {
        self.breaker.server_errors
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if !self.settled {
            self.breaker.update(|state| state.withdrawn(self.era));
        }
        self.breaker.in_flight.fetch_sub(1, SeqCst);
    }
}
