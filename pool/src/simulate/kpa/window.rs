//! Exact averages of a number over the time just past.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// How a number changed within a window, and what it averages.
///
/// As in Knative, a number of which nothing has been heard for a whole window (while it was zero) begins anew: the average
/// is then over the time since, not diluted by the silence before.
#[derive(Debug)]
pub(super) struct History {
    longest: Duration,
    /// When the number changed, to what, and its integral until then, in number times seconds.
    changes: VecDeque<(Instant, u32, f64)>,
}

impl History {
    /// For windows up to `longest`.
    pub(super) fn new(longest: Duration) -> Self {
        Self { longest, changes: VecDeque::new() }
    }

    /// The number is `value` from `now` on.
    pub(super) fn record(&mut self, value: u32, now: Instant) {
        let integral = match self.changes.back() {
            Some((since, 0, _)) if now - *since >= self.longest => {
                self.changes.clear();
                0.0
            }
            Some((since, last, integral)) => integral + f64::from(*last) * (now - *since).as_secs_f64(),
            None => 0.0,
        };
        self.changes.push_back((now, value, integral));
        // One change before the window tells what the number was when it began.
        while self.changes.get(1).is_some_and(|(at, ..)| now - *at >= self.longest) {
            self.changes.pop_front();
        }
    }

    /// The average over the last `window`, or over the time since the first change if that is less.
    pub(super) fn average(&self, window: Duration, now: Instant) -> f64 {
        let (Some((first, value, _)), Some((_, latest, _))) = (self.changes.front(), self.changes.back())
        else {
            return 0.0;
        };
        let over = window.min(now - *first);
        if over.is_zero() {
            return f64::from(*if now == *first { latest } else { value });
        }
        (self.integral_until(now) - self.integral_until(now - over)) / over.as_secs_f64()
    }

    /// From some fixed time to `at`, which is not before the first change.
    fn integral_until(&self, at: Instant) -> f64 {
        let after = self.changes.partition_point(|(since, ..)| *since <= at);
        let last = after.checked_sub(1).and_then(|index| self.changes.get(index));
        last.map_or(0.0, |(since, value, integral)| {
            integral + f64::from(*value) * (at - *since).as_secs_f64()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn averages_are_exact_and_begin_anew_after_silence() {
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let window = Duration::from_secs;
        let mut history = History::new(window(60));
        assert_eq!(history.average(window(6), at(0)), 0.0);
        history.record(3, at(0));
        assert_eq!(history.average(window(6), at(0)), 3.0, "over no time yet");
        history.record(0, at(2));
        assert_eq!((history.average(window(6), at(4)), history.average(window(60), at(4))), (1.5, 1.5));
        assert_eq!((history.average(window(3), at(4)), history.average(window(2), at(4))), (1.0, 0.0));
        assert_eq!(history.average(window(60), at(60)), 0.1);
        history.record(5, at(62));
        history.record(1, at(63));
        assert_eq!(history.average(window(60), at(64)), 3.0, "the silence does not count");
        for second in 65..300 {
            history.record(second % 2, at(u64::from(second)));
        }
        assert_eq!(history.average(window(60), at(300)), 0.5);
        assert!(history.changes.len() <= 62);
    }
}
