//! What a circuit breaker remembers, in one word, and what becomes of it. Time is milliseconds since some beginning.

use std::time::Duration;

use weir_config::model;

/// Where it is in its life. Each change begins another era, so that a request that was let in during one says nothing in a
/// later one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct State {
    /// Modulo 2^14.
    pub(super) era: u16,
    pub(super) phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Counts requests that have ended and those of them that failed, in the window of this number (modulo 2^14). The counts
    /// stay below 2^17: both are halved before.
    Closed { window: u64, ended: u64, failed: u64 },
    /// Lets nobody in until then.
    Open { until: u64 },
    /// Has let so many in, and so many of them have succeeded.
    HalfOpen { admitted: u64, passed: u64 },
}

/// The configuration, in the state's units.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) failures: u64,
    /// Thousandths.
    pub(super) ratio: u64,
    /// Milliseconds, as [`Self::open_for`]; at least 1.
    pub(super) window: u64,
    pub(super) open_for: u64,
    pub(super) half_open: u64,
}

const ERA_BITS: u32 = 14;
const COUNT_BITS: u32 = 17;
const WINDOW_BITS: u32 = 14;
const PAYLOAD_BITS: u32 = WINDOW_BITS + 2 * COUNT_BITS;
const HALF_BITS: u32 = PAYLOAD_BITS / 2;

impl Limits {
    pub(super) fn new(config: &model::Breaker) -> Self {
        Self {
            failures: config.failures.into(),
            ratio: config.ratio.0,
            window: milliseconds(config.window).max(1),
            open_for: milliseconds(config.open_for).max(1),
            half_open: config.half_open.into(),
        }
    }

    fn window_at(&self, now: u64) -> u64 {
        (now / self.window) & mask(WINDOW_BITS)
    }
}

impl State {
    pub(super) const NEW: Self = Self { era: 0, phase: Phase::Closed { window: 0, ended: 0, failed: 0 } };

    /// Lets a request in, or says in how many milliseconds it is worth trying again.
    pub(super) fn admit(self, now: u64, limits: &Limits) -> Result<Self, u64> {
        match self.phase {
            Phase::Closed { .. } => Ok(self),
            Phase::Open { until } if now < until => Err(until - now),
            Phase::Open { .. } => Ok(self.next(Phase::HalfOpen { admitted: 1, passed: 0 })),
            Phase::HalfOpen { admitted, passed } if admitted < limits.half_open => {
                Ok(Self { phase: Phase::HalfOpen { admitted: admitted + 1, passed }, ..self })
            }
            Phase::HalfOpen { .. } => Err(0),
        }
    }

    /// A request that was let in during `era` has succeeded or failed.
    pub(super) fn ended(self, era: u16, success: bool, now: u64, limits: &Limits) -> Self {
        if era != self.era {
            return self;
        }
        match self.phase {
            Phase::Closed { window, ended, failed } => {
                let this = limits.window_at(now);
                let (ended, failed) = if window == this { (ended, failed) } else { (0, 0) };
                let (ended, failed) = (ended + 1, failed + u64::from(!success));
                if !success && failed >= limits.failures && failed * 1000 >= ended * limits.ratio {
                    return self.opened(now, limits);
                }
                let halve = u32::from(ended == mask(COUNT_BITS));
                let phase = Phase::Closed { window: this, ended: ended >> halve, failed: failed >> halve };
                Self { phase, ..self }
            }
            Phase::Open { .. } => self,
            Phase::HalfOpen { .. } if !success => self.opened(now, limits),
            Phase::HalfOpen { passed, .. } if passed + 1 >= limits.half_open => {
                self.next(Phase::Closed { window: limits.window_at(now), ended: 0, failed: 0 })
            }
            Phase::HalfOpen { admitted, passed } => {
                Self { phase: Phase::HalfOpen { admitted, passed: passed + 1 }, ..self }
            }
        }
    }

    /// A request that was let in during `era` has ended without saying anything of the pool: another may take its place.
    pub(super) fn withdrawn(self, era: u16) -> Self {
        match self.phase {
            Phase::HalfOpen { admitted, passed } if era == self.era => {
                Self { phase: Phase::HalfOpen { admitted: admitted.saturating_sub(1), passed }, ..self }
            }
            _ => self,
        }
    }

    fn opened(self, now: u64, limits: &Limits) -> Self {
        self.next(Phase::Open { until: now + limits.open_for })
    }

    fn next(self, phase: Phase) -> Self {
        Self { era: (self.era + 1) & ((1 << ERA_BITS) - 1), phase }
    }

    pub(super) fn pack(self) -> u64 {
        let (tag, payload) = match self.phase {
            Phase::Closed { window, ended, failed } => {
                (0, window << (2 * COUNT_BITS) | ended << COUNT_BITS | failed)
            }
            Phase::Open { until } => (1, until & mask(PAYLOAD_BITS)),
            Phase::HalfOpen { admitted, passed } => (2, admitted << HALF_BITS | passed),
        };
        tag << (ERA_BITS + PAYLOAD_BITS) | u64::from(self.era) << PAYLOAD_BITS | payload
    }

    pub(super) fn unpack(word: u64) -> Self {
        let payload = word & mask(PAYLOAD_BITS);
        let phase = match word >> (ERA_BITS + PAYLOAD_BITS) {
            0 => Phase::Closed {
                window: payload >> (2 * COUNT_BITS),
                ended: payload >> COUNT_BITS & mask(COUNT_BITS),
                failed: payload & mask(COUNT_BITS),
            },
            1 => Phase::Open { until: payload },
            _ => Phase::HalfOpen { admitted: payload >> HALF_BITS, passed: payload & mask(HALF_BITS) },
        };
        let era = u16::try_from(word >> PAYLOAD_BITS & mask(ERA_BITS)).expect("an era has 14 bits");
        Self { era, phase }
    }
}

fn mask(bits: u32) -> u64 {
    (1 << bits) - 1
}

/// Of at most a year, which a configuration's durations are, or since weir began.
pub(super) fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX) & mask(PAYLOAD_BITS - 1)
}
