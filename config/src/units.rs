//! Durations and byte sizes with their units, as people write them.
//!
//! A bare number is refused: `timeout = 30` is the classic way to get milliseconds where seconds were meant.

use std::fmt;
use std::time::Duration;

use thiserror::Error;

/// Why a text is no duration or no size.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum UnitError {
    /// Neither a number nor a unit is where one should be.
    #[error("{text:?} is not a number with a unit; units are {units}")]
    Malformed {
        /// What was written.
        text: String,
        /// What there is to choose from.
        units: &'static str,
    },
    /// A number alone.
    #[error("{text:?} has no unit; units are {units}")]
    NoUnit {
        /// What was written.
        text: String,
        /// What there is to choose from.
        units: &'static str,
    },
    /// A number with something else behind it.
    #[error("{unit:?} is no unit; units are {units}")]
    UnknownUnit {
        /// What was written in the unit's place.
        unit: String,
        /// What there is to choose from.
        units: &'static str,
    },
    /// `30s1m`, or the same unit twice.
    #[error("{text:?} has its units out of order; the largest comes first, each at most once")]
    Order {
        /// What was written.
        text: String,
    },
    /// More than 64 bits hold.
    #[error("{text:?} is too large")]
    TooLarge {
        /// What was written.
        text: String,
    },
}

/// Units of a duration, as messages list them.
pub(crate) const DURATION_UNITS: &str = "ms, s, m, h";
/// Units of a size, as messages list them.
pub(crate) const SIZE_UNITS: &str = "B, KB, MB, GB, TB, KiB, MiB, GiB, TiB";

/// Units of one quantity: how a message lists them, and each one's factor.
struct Units {
    listed: &'static str,
    factors: &'static [(&'static str, u64)],
}

/// Factors in milliseconds.
const DURATION: Units =
    Units { listed: DURATION_UNITS, factors: &[("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)] };

/// Factors in bytes.
const SIZE: Units = Units {
    listed: SIZE_UNITS,
    factors: &[
        ("B", 1),
        ("KB", 1_000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
        ("TB", 1_000_000_000_000),
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("TiB", 1 << 40),
    ],
};

/// One number with its unit, and what follows it.
struct Term<'t> {
    amount: u64,
    factor: u64,
    rest: &'t str,
}

impl Units {
    fn malformed(&self, text: &str) -> UnitError {
        UnitError::Malformed { text: text.to_owned(), units: self.listed }
    }

    /// Takes the first term off `rest`, which is the end of `text`.
    fn term<'t>(&self, text: &str, rest: &'t str) -> Result<Term<'t>, UnitError> {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (number, rest) = rest.split_at(digits);
        let letters = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let (unit, rest) = rest.split_at(letters);
        if number.is_empty() || !unit.chars().all(char::is_alphabetic) {
            return Err(self.malformed(text));
        }
        if unit.is_empty() {
            return Err(UnitError::NoUnit { text: text.to_owned(), units: self.listed });
        }
        let Some((_, factor)) = self.factors.iter().find(|(name, _)| *name == unit) else {
            return Err(UnitError::UnknownUnit { unit: unit.to_owned(), units: self.listed });
        };
        let too_large = || UnitError::TooLarge { text: text.to_owned() };
        let amount = number.parse::<u64>().ok().and_then(|n| n.checked_mul(*factor)).ok_or_else(too_large)?;
        Ok(Term { amount, factor: *factor, rest })
    }
}

/// Reads a duration such as `500ms`, `30s` or `1m30s`.
///
/// # Errors
/// When the text has no, an unknown or a misplaced unit, or exceeds 2^64 milliseconds.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    let mut term = DURATION.term(text, text)?;
    let mut total = term.amount;
    while !term.rest.is_empty() {
        let next = DURATION.term(text, term.rest)?;
        if next.factor >= term.factor {
            return Err(UnitError::Order { text: text.to_owned() });
        }
        total =
            total.checked_add(next.amount).ok_or_else(|| UnitError::TooLarge { text: text.to_owned() })?;
        term = next;
    }
    Ok(Duration::from_millis(total))
}

/// Reads a number of bytes such as `64KiB` (binary) or `1MB` (decimal).
///
/// # Errors
/// When the text has no or an unknown unit, or exceeds 2^64 bytes.
pub fn parse_size(text: &str) -> Result<u64, UnitError> {
    let term = SIZE.term(text, text)?;
    if term.rest.is_empty() { Ok(term.amount) } else { Err(SIZE.malformed(text)) }
}

/// Writes a duration the way [`parse_duration`] reads it; parts of a millisecond are left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DurationText(pub Duration);

impl fmt::Display for DurationText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0.as_millis();
        if rest == 0 {
            return f.write_str("0s");
        }
        for (unit, factor) in DURATION.factors.iter().rev() {
            let factor = u128::from(*factor);
            if rest >= factor {
                write!(f, "{}{unit}", rest / factor)?;
                rest %= factor;
            }
        }
        Ok(())
    }
}

/// Writes a number of bytes the way [`parse_size`] reads it, in the largest binary unit that is exact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SizeText(pub u64);

impl fmt::Display for SizeText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exact = |factor: u64| self.0 != 0 && self.0.is_multiple_of(factor);
        let binary = SIZE.factors.iter().rev().take_while(|(unit, _)| unit.ends_with("iB"));
        let (unit, factor) = binary.copied().find(|(_, factor)| exact(*factor)).unwrap_or(("B", 1));
        write!(f, "{}{unit}", self.0 / factor)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_are_read() {
        for (text, millis) in [
            ("500ms", 500),
            ("30s", 30_000),
            ("5m", 300_000),
            ("1h", 3_600_000),
            ("1m30s", 90_000),
            ("1h0m0s1ms", 3_600_001),
            ("0s", 0),
            ("007s", 7_000),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn sizes_are_read() {
        for (text, bytes) in [
            ("16MiB", 16 << 20),
            ("64KiB", 64 << 10),
            ("8GiB", 8 << 30),
            ("2TiB", 2 << 40),
            ("1MB", 1_000_000),
            ("3KB", 3_000),
            ("0B", 0),
            ("18446744073709551615B", u64::MAX),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn each_mistake_in_a_duration_has_its_message() {
        for (text, message) in [
            ("30", r#""30" has no unit; units are ms, s, m, h"#),
            ("1m30", r#""1m30" has no unit; units are ms, s, m, h"#),
            ("", r#""" is not a number with a unit; units are ms, s, m, h"#),
            ("s", r#""s" is not a number with a unit; units are ms, s, m, h"#),
            ("-1s", r#""-1s" is not a number with a unit; units are ms, s, m, h"#),
            ("1.5s", r#""1.5s" is not a number with a unit; units are ms, s, m, h"#),
            ("1 s", r#""1 s" is not a number with a unit; units are ms, s, m, h"#),
            ("1s ", r#""1s " is not a number with a unit; units are ms, s, m, h"#),
            ("3sec", r#""sec" is no unit; units are ms, s, m, h"#),
            ("3S", r#""S" is no unit; units are ms, s, m, h"#),
            ("1µs", r#""µs" is no unit; units are ms, s, m, h"#),
            ("30s1m", r#""30s1m" has its units out of order; the largest comes first, each at most once"#),
            ("1s1s", r#""1s1s" has its units out of order; the largest comes first, each at most once"#),
            ("18446744073709551616ms", r#""18446744073709551616ms" is too large"#),
            ("18446744073709551615s", r#""18446744073709551615s" is too large"#),
            ("5124095576030h1711875000ms", r#""5124095576030h1711875000ms" is too large"#),
        ] {
            assert_eq!(parse_duration(text).unwrap_err().to_string(), message, "{text}");
        }
    }

    #[test]
    fn each_mistake_in_a_size_has_its_message() {
        let units = "units are B, KB, MB, GB, TB, KiB, MiB, GiB, TiB";
        for (text, message) in [
            ("16", format!(r#""16" has no unit; {units}"#)),
            ("", format!(r#""" is not a number with a unit; {units}"#)),
            ("MiB", format!(r#""MiB" is not a number with a unit; {units}"#)),
            ("1MiB1KiB", format!(r#""1MiB1KiB" is not a number with a unit; {units}"#)),
            ("16 MiB", format!(r#""16 MiB" is not a number with a unit; {units}"#)),
            ("16M", format!(r#""M" is no unit; {units}"#)),
            ("16mib", format!(r#""mib" is no unit; {units}"#)),
            ("16777216TiB", r#""16777216TiB" is too large"#.to_owned()),
            ("18446744073709551616B", r#""18446744073709551616B" is too large"#.to_owned()),
        ] {
            assert_eq!(parse_size(text).unwrap_err().to_string(), message, "{text}");
        }
    }

    #[test]
    fn texts_use_the_largest_units() {
        assert_eq!(DurationText(Duration::from_millis(90_061)).to_string(), "1m30s61ms");
        assert_eq!(DurationText(Duration::ZERO).to_string(), "0s");
        assert_eq!(SizeText(16 << 20).to_string(), "16MiB");
        assert_eq!(SizeText((16 << 20) + 1).to_string(), "16777217B");
        assert_eq!(SizeText(0).to_string(), "0B");
    }

    proptest! {
        #[test]
        fn durations_round_trip(millis: u64) {
            let duration = Duration::from_millis(millis);
            prop_assert_eq!(parse_duration(&DurationText(duration).to_string()), Ok(duration));
        }

        #[test]
        fn sizes_round_trip(bytes: u64, shift in 0..40) {
            for bytes in [bytes, bytes >> shift << shift] {
                prop_assert_eq!(parse_size(&SizeText(bytes).to_string()), Ok(bytes));
            }
        }

        #[test]
        fn no_text_panics(text in "[0-9a-zA-Zµ. -]{0,24}|\\PC*") {
            let _ = parse_duration(&text);
            let _ = parse_size(&text);
        }
    }
}
