//! A guest's log lines on their way to the operator: made harmless, and not too many.
//!
//! A hostile guest must neither flood weir's log nor forge lines in it, so lines pass a token bucket, and everything
//! that a terminal or a log reader could take for more than text is escaped.

use std::fmt::Write;
use std::time::{Duration, Instant};

/// So many seconds' worth of lines may come at once.
const BURST_SECONDS: u32 = 2;

/// Token bucket for lines, and a count of those that were dropped.
#[derive(Debug)]
pub(crate) struct LineLimiter {
    tokens: u32,
    burst: u32,
    /// One more line per this much time.
    refill: Duration,
    refilled: Instant,
    dropped: u64,
}

impl LineLimiter {
    /// A full bucket for `lines` per second, at least one.
    pub(crate) fn new(now: Instant, lines: u32) -> Self {
        let lines = lines.max(1);
        let burst = lines.saturating_mul(BURST_SECONDS);
        let refill = (Duration::from_secs(1) / lines).max(Duration::from_nanos(1));
        Self { tokens: burst, burst, refill, refilled: now, dropped: 0 }
    }

    /// Takes a token for a line at `now`; false: drop the line, which is counted.
    pub(crate) fn admit(&mut self, now: Instant) -> bool {
        self.refill(now);
        match self.tokens.checked_sub(1) {
            Some(rest) => self.tokens = rest,
            None => {
                self.count_dropped();
                return false;
            }
        }
        true
    }

    /// Counts a line that was dropped for another reason.
    pub(crate) fn count_dropped(&mut self) {
        self.dropped = self.dropped.saturating_add(1);
    }

    /// Number of lines dropped since the last [`Self::reported`].
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// The operator knows of what was dropped.
    pub(crate) fn reported(&mut self) {
        self.dropped = 0;
    }

    fn refill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.refilled);
        let earned = u32::try_from(passed.as_nanos() / self.refill.as_nanos()).unwrap_or(u32::MAX);
        if earned >= self.burst - self.tokens {
            self.tokens = self.burst;
            self.refilled = now;
        } else {
            self.tokens += earned;
            self.refilled += self.refill * earned;
        }
    }
}

/// One line of printable text from whatever the guest wrote. A newline at the end is dropped, those inside and all
/// other control and text-direction characters are escaped, and what is no UTF-8 is replaced.
pub(crate) fn printable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let text = text.strip_suffix('\n').unwrap_or(&text);
    let mut line = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() || is_format(character) {
            // Writing to a string cannot fail.
            let _ = write!(line, "{}", character.escape_default());
        } else {
            line.push(character);
        }
    }
    line
}

/// Line and paragraph separators, and characters that reorder or hide text around them.
fn is_format(character: char) -> bool {
    matches!(character,
        '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{61c}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LINES: u32 = 100;
    const BURST: u32 = 200;
    const REFILL: Duration = Duration::from_millis(10);

    #[test]
    fn lines_cannot_be_forged() {
        assert_eq!(printable(b"hello\n"), "hello");
        assert_eq!(printable(b"one\ntwo\r\x1b[2J\0\x7f"), "one\\ntwo\\r\\u{1b}[2J\\u{0}\\u{7f}");
        assert_eq!(printable("a\u{202e}b\u{2028}c\u{85}".as_bytes()), "a\\u{202e}b\\u{2028}c\\u{85}");
        assert_eq!(printable("grüße ✓".as_bytes()), "grüße ✓");
        assert_eq!(printable(b"\xff\xfe"), "\u{fffd}\u{fffd}");
    }

    #[test]
    fn a_flood_is_cut_to_burst_and_rate() {
        let start = Instant::now();
        let mut limiter = LineLimiter::new(start, LINES);
        let admitted = (0..1000).filter(|_| limiter.admit(start)).count();
        assert_eq!(admitted, BURST as usize);
        assert_eq!(limiter.dropped(), 1000 - u64::from(BURST));
        limiter.reported();
        assert_eq!(limiter.dropped(), 0);
        assert!(!limiter.admit(start + REFILL - Duration::from_nanos(1)));
        assert!(limiter.admit(start + REFILL));
        assert!(!limiter.admit(start + REFILL));
    }

    proptest! {
        #[test]
        fn any_bytes_become_one_harmless_line(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let line = printable(&bytes);
            prop_assert!(!line.chars().any(|c| c.is_control() || is_format(c)));
        }

        #[test]
        fn never_more_lines_than_burst_and_rate(gaps in proptest::collection::vec(0u64..30_000_000, 1..500)) {
            let start = Instant::now();
            let mut limiter = LineLimiter::new(start, LINES);
            let (mut now, mut admitted) = (start, 0u128);
            for gap in gaps {
                now += Duration::from_nanos(gap);
                admitted += u128::from(limiter.admit(now));
                let bound = u128::from(BURST) + (now - start).as_nanos() / REFILL.as_nanos();
                prop_assert!(admitted <= bound);
            }
        }
    }
}
