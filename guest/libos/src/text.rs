//! Text in a fixed buffer, for messages that must not allocate: a panic may be about memory.

use core::fmt;

/// Collects formatted text and drops what exceeds `N` bytes, at a character boundary.
pub(crate) struct Text<const N: usize> {
    bytes: [u8; N],
    length: usize,
    full: bool,
}

impl<const N: usize> Text<N> {
    /// No text.
    pub(crate) fn new() -> Self {
        Self { bytes: [0; N], length: 0, full: false }
    }

    /// Text that begins with one raw byte.
    pub(crate) fn with_code(code: u8) -> Self {
        let mut text = Self::new();
        text.bytes[0] = code;
        text.length = 1;
        text
    }

    pub(crate) fn as_str(&self) -> &str {
        core::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl<const N: usize> fmt::Write for Text<N> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.full {
            return Ok(());
        }
        let length = text.floor_char_boundary(N - self.length);
        self.full = length < text.len();
        self.bytes[self.length..self.length + length].copy_from_slice(&text.as_bytes()[..length]);
        self.length += length;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Write;

    #[test]
    fn long_text_is_cut_at_a_character_and_nothing_follows_the_cut() {
        let mut text = Text::<6>::with_code(3);
        for part in ["ab", "cd", "é", "e"] {
            text.write_str(part).unwrap();
        }
        assert_eq!(text.as_str(), "\u{3}abcd");
    }
}
