//! Exact decimal numbers: what is written as `0.1` has to be a tenth, and numbers of a configuration are compared.

use std::fmt;

/// A number that is not negative, in thousandths of one: 1500 is 1.5. Displayed as a decimal number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Thousandths(pub u64);

impl fmt::Display for Thousandths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, fraction) = (self.0 / 1000, self.0 % 1000);
        let text = format!("{whole}.{fraction:03}");
        f.write_str(text.trim_end_matches('0').trim_end_matches('.'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_digit_is_needless() {
        for (thousandths, text) in [
            (0, "0"),
            (1, "0.001"),
            (10, "0.01"),
            (100, "0.1"),
            (1000, "1"),
            (1500, "1.5"),
            (1_024_000, "1024"),
        ] {
            assert_eq!(Thousandths(thousandths).to_string(), text);
        }
    }
}
