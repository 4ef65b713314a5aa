//! VMs of different speed: a share of them that is slower, as on a host whose cores or memory are not all alike.

use std::str::FromStr;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// The slowest that there is.
const SLOWEST: f64 = 100.0;

/// Some VMs take longer with every request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SlowVms {
    /// Of the VMs, 0 to 1.
    pub share: f64,
    /// So many times as long, 1 to 100.
    pub factor: f64,
}

/// Why a text does not say which VMs are slow.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no share of slow VMs and their factor, such as 0.25x4: from 0 to 1, and from 1 to 100")]
pub struct SlowVmsError(String);

impl FromStr for SlowVms {
    type Err = SlowVmsError;

    fn from_str(text: &str) -> Result<Self, SlowVmsError> {
        let slow = text.split_once('x').and_then(|(share, factor)| {
            let slow = Self { share: number(share)?, factor: number(factor)? };
            ((0.0..=1.0).contains(&slow.share) && (1.0..=SLOWEST).contains(&slow.factor)).then_some(slow)
        });
        slow.ok_or_else(|| SlowVmsError(text.to_owned()))
    }
}

/// Digits, perhaps with a point; no sign, exponent or name.
fn number(text: &str) -> Option<f64> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    text.parse().ok().filter(|_| plain)
}

/// Draws speeds. The nth VM of two with the same seed is equally fast.
#[derive(Debug)]
pub(crate) struct Speeds {
    slow: Option<SlowVms>,
    random: StdRng,
}

impl Speeds {
    /// All are equally fast without `slow`.
    pub(crate) fn new(slow: Option<SlowVms>, seed: u64) -> Self {
        Self { slow, random: StdRng::seed_from_u64(seed) }
    }

    /// How many times as long the next VM takes.
    pub(crate) fn next(&mut self) -> f64 {
        match self.slow {
            Some(slow) if self.random.random::<f64>() < slow.share => slow.factor,
            _ => 1.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_read() {
        assert_eq!("0.25x4".parse(), Ok(SlowVms { share: 0.25, factor: 4.0 }));
        assert_eq!("1x1".parse(), Ok(SlowVms { share: 1.0, factor: 1.0 }));
        for text in [
            "", "x", "0.25", "0.25x", "x4", "1.1x4", "0.5x0.9", "0.5x101", "-0x4", "NaNx4", "0.5xinf",
            "1x1e1", ".x2",
        ] {
            assert_eq!(text.parse::<SlowVms>(), Err(SlowVmsError(text.to_owned())), "{text}");
        }
    }

    #[test]
    fn the_share_is_slow_and_repeats() {
        let draw = |seed| {
            let mut speeds = Speeds::new(Some(SlowVms { share: 0.25, factor: 4.0 }), seed);
            (0..10_000).map(|_| speeds.next()).collect::<Vec<_>>()
        };
        let factors = draw(1);
        assert!(factors == draw(1) && factors != draw(2));
        let slow = factors.iter().filter(|factor| **factor == 4.0).count();
        assert!(
            (2300..2700).contains(&slow) && factors.iter().all(|factor| [1.0, 4.0].contains(factor)),
            "{slow}"
        );
        let mut alike = Speeds::new(None, 1);
        assert!((0..100).all(|_| alike.next() == 1.0));
    }
}
