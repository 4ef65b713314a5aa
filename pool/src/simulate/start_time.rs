//! How long VMs take to start: a distribution that the benches measured, drawn from with a seed.
//!
//! Start times are lognormal as far as two percentiles can tell. The tails are cut, below because nothing is infinitely
//! fast (and the clairvoyant bound needs a shortest start), above because a start has a timeout.

use std::f64::consts::TAU;
use std::str::FromStr;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// So many standard deviations are in a normal distribution's 99th percentile.
const P99: f64 = 2.326_347_874;
/// Draws are kept between these standard deviations.
const LOWEST: f64 = -2.5;
const HIGHEST: f64 = 3.5;
/// Start times are within these, nanoseconds.
const RANGE: std::ops::RangeInclusive<f64> = 1e3..=600e9;

/// A distribution of the times from the order to start a VM to its READY.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StartTimes {
    /// Half of the starts are faster.
    pub median: Duration,
    /// One of a hundred is slower. Not below `median`.
    pub p99: Duration,
}

/// Why a text is no distribution of start times.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no start time: clone, cold, one time such as 0.5ms, or a median and a 99th percentile such as 1.5ms..2.2ms, from 1us to 600s"
)]
pub struct StartTimesError(String);

impl StartTimes {
    /// From a request that finds no VM to its answer by a clone, `docs/BENCHMARKS.md`.
    pub const CLONE: Self = Self { median: Duration::from_micros(1500), p99: Duration::from_micros(2200) };
    /// The same where the VM boots.
    pub const COLD: Self = Self { median: Duration::from_micros(2300), p99: Duration::from_micros(3500) };

    /// The shortest that there is.
    pub fn shortest(&self) -> Duration {
        self.at(LOWEST)
    }

    /// The time that is so many standard deviations from the median, of the times' logarithms.
    fn at(&self, deviations: f64) -> Duration {
        let ratio = self.p99.as_secs_f64() / self.median.as_secs_f64();
        self.median.mul_f64(ratio.powf(deviations.clamp(LOWEST, HIGHEST) / P99))
    }
}

/// Draws from a distribution. The nth draw of two with the same seed is the same.
#[derive(Debug)]
pub(crate) struct Draws {
    times: StartTimes,
    random: StdRng,
}

impl Draws {
    pub(crate) fn new(times: StartTimes, seed: u64) -> Self {
        Self { times, random: StdRng::seed_from_u64(seed) }
    }

    /// Box and Muller's transform makes a normal number of two uniform ones.
    pub(crate) fn next(&mut self) -> Duration {
        let (radius, angle): (f64, f64) = (1.0 - self.random.random::<f64>(), self.random.random());
        self.times.at((-2.0 * radius.ln()).sqrt() * (TAU * angle).cos())
    }
}

impl FromStr for StartTimes {
    type Err = StartTimesError;

    fn from_str(text: &str) -> Result<Self, StartTimesError> {
        let times = match text {
            "clone" => Some(Self::CLONE),
            "cold" => Some(Self::COLD),
            _ => {
                let (median, p99) = text.split_once("..").unwrap_or((text, text));
                time(median).zip(time(p99)).map(|(median, p99)| Self { median, p99 })
            }
        };
        times.filter(|times| times.median <= times.p99).ok_or_else(|| StartTimesError(text.to_owned()))
    }
}

/// A decimal number of microseconds, milliseconds or seconds.
fn time(text: &str) -> Option<Duration> {
    let units = [("us", 1e3), ("ms", 1e6), ("s", 1e9)];
    let (number, unit) = units.iter().find_map(|(name, unit)| Some((text.strip_suffix(name)?, unit)))?;
    if !number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return None;
    }
    let nanos = number.parse::<f64>().ok()? * unit;
    RANGE.contains(&nanos).then(|| Duration::from_secs_f64(nanos / 1e9))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_read() {
        let half = Duration::from_micros(500);
        assert_eq!("0.5ms".parse(), Ok(StartTimes { median: half, p99: half }));
        assert_eq!("500us..2s".parse(), Ok(StartTimes { median: half, p99: Duration::from_secs(2) }));
        assert_eq!("1.5ms..2.2ms".parse(), Ok(StartTimes::CLONE));
        assert_eq!("cold".parse(), Ok(StartTimes::COLD));
        for text in [
            "", "ms", "1", "1m", "-1ms", "NaNms", "infs", "1e3ms", "2ms..1ms", "1ms..", "0ms", "601s",
            "1.1.1s",
        ] {
            assert_eq!(text.parse::<StartTimes>(), Err(StartTimesError(text.to_owned())), "{text}");
        }
    }

    #[test]
    fn draws_have_the_percentiles_and_repeat() {
        let draw = |seed| {
            let mut draws = Draws::new(StartTimes::CLONE, seed);
            (0..10_000).map(|_| draws.next()).collect::<Vec<_>>()
        };
        let mut times = draw(1);
        assert_eq!(times, draw(1));
        assert_ne!(times, draw(2));
        times.sort_unstable();
        let near = |time: Duration, expected: f64| (time.as_secs_f64() * 1e3 / expected - 1.0).abs() < 0.03;
        assert!(near(times[5000], 1.5) && near(times[9900], 2.2), "{:?} {:?}", times[5000], times[9900]);
        assert!(times[0] >= StartTimes::CLONE.shortest());
    }

    #[test]
    fn one_time_is_always_that() {
        let times: StartTimes = "2ms".parse().unwrap();
        let mut draws = Draws::new(times, 7);
        assert!((0..100).all(|_| draws.next() == Duration::from_millis(2)));
    }
}
