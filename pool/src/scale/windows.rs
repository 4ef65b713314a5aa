//! What the demand was: its averages and its peak over the last moments.
//!
//! A window is a ring of buckets. An average weighs each demand by how long it lasted, whenever it was observed; only
//! the bucket that the window's beginning cuts is taken as level. Memory does not depend on the window's length nor on
//! the number of observations. Before the first observation there was no demand.

use std::time::Duration;

use tokio::time::Instant;
use weir_config::model::Thousandths;

use super::Limits;

/// Buckets per window, besides the one that is being filled.
const BUCKETS: usize = 30;
const RING: usize = BUCKETS + 1;

/// What a decision needs of the past.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Averages {
    /// Demand over the stable window, requests.
    pub stable: Thousandths,
    /// Demand over the panic window, requests.
    pub panic: Thousandths,
    /// Highest demand within the panic window, requests.
    pub peak_demand: u64,
    /// Most VMs alive within the panic window.
    pub peak_live: u32,
}

impl Default for Averages {
    fn default() -> Self {
        Self { stable: Thousandths(0), panic: Thousandths(0), peak_demand: 0, peak_live: 0 }
    }
}

/// One pool's history.
#[derive(Clone, Debug)]
pub struct Windows {
    observed: Option<Observed>,
    stable: Ring<u128>,
    panic: Ring<u128>,
    demand: Ring<u64>,
    live: Ring<u32>,
}

#[derive(Clone, Copy, Debug)]
struct Observed {
    first: Instant,
    /// Nanoseconds after `first`.
    last: u64,
    demand: u64,
    live: u32,
}

/// Buckets by the number of widths since the first observation, modulo their number.
#[derive(Clone, Debug)]
struct Ring<T> {
    /// Nanoseconds.
    width: u64,
    buckets: [T; RING],
}

impl Windows {
    /// Without history, for windows as long as `limits` says.
    pub fn new(limits: &Limits) -> Self {
        Self {
            observed: None,
            stable: Ring::new(limits.stable_window),
            panic: Ring::new(limits.panic_window),
            demand: Ring::new(limits.panic_window),
            live: Ring::new(limits.panic_window),
        }
    }

    /// From `now` on there is `demand`, and `live` VMs, until the next call. Calls are in the order of time; one that
    /// is not counts as being at the last one's.
    pub fn observe(&mut self, demand: u64, live: u32, now: Instant) -> Averages {
        let mut at = 0;
        if let Some(before) = self.observed {
            at = nanos(now.saturating_duration_since(before.first)).max(before.last);
            self.stable.hold_sum(before.last, at, before.demand);
            self.panic.hold_sum(before.last, at, before.demand);
            self.demand.hold_peak(before.last, at, before.demand);
            self.live.hold_peak(before.last, at, before.live);
        }
        let first = self.observed.map_or(now, |before| before.first);
        self.observed = Some(Observed { first, last: at, demand, live });
        Averages {
            stable: self.stable.average(at),
            panic: self.panic.average(at),
            peak_demand: self.demand.peak(demand),
            peak_live: self.live.peak(live),
        }
    }
}

impl<T: Copy + Default + Ord> Ring<T> {
    fn new(window: Duration) -> Self {
        Self { width: (nanos(window) / BUCKETS as u64).max(1), buckets: [T::default(); RING] }
    }

    /// Clears the buckets that are entered between `from` and `to`, and shows those that are touched, with the time
    /// that is spent in each.
    fn pass(&mut self, from: u64, to: u64, mut touch: impl FnMut(&mut T, u64)) {
        let (first, last) = (from / self.width, to / self.width);
        // What lies a whole ring back leaves no trace.
        let oldest = first.max((last + 1).saturating_sub(RING as u64));
        for number in oldest..=last {
            let bucket = &mut self.buckets[slot(number)];
            if number != first {
                *bucket = T::default();
            }
            let begin = from.max(number * self.width);
            let end = to.min((number + 1).saturating_mul(self.width));
            touch(bucket, end - begin);
        }
    }

    fn hold_peak(&mut self, from: u64, to: u64, value: T) {
        self.pass(from, to, |peak, _| *peak = value.max(*peak));
    }

    /// The highest since the window began, `value` being the last.
    fn peak(&self, value: T) -> T {
        self.buckets.iter().copied().fold(value, T::max)
    }
}

impl Ring<u128> {
    fn hold_sum(&mut self, from: u64, to: u64, value: u64) {
        self.pass(from, to, |sum, nanos| *sum = sum.saturating_add(u128::from(value) * u128::from(nanos)));
    }

    /// Per time, over the window that ends at `at`.
    fn average(&self, at: u64) -> Thousandths {
        let oldest = slot(at / self.width + 1);
        let whole = self.buckets.iter().enumerate().filter(|(index, _)| *index != oldest);
        let whole: u128 = whole.map(|(_, sum)| *sum).fold(0, u128::saturating_add);
        let part = self.width - at % self.width;
        let cut = self.buckets[oldest] / u128::from(self.width) * u128::from(part);
        let window = u128::from(self.width) * BUCKETS as u128;
        let average = whole.saturating_add(cut).saturating_mul(1000) / window;
        Thousandths(u64::try_from(average).unwrap_or(u64::MAX))
    }
}

/// Where the bucket of this number is.
fn slot(number: u64) -> usize {
    usize::try_from(number % RING as u64).expect("the ring is as long as memory is at most")
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
