//! One metric out of Prometheus' text format, version 0.0.4, as it arrives.
//!
//! <https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format>: a sample a line, `name{label="…",…}
//! value timestamp`, of which labels and timestamp may be missing; lines that begin with `#` are comments. The text is a
//! guest's. Never more than one line of it is kept, and any line that is none of these spoils it all: what is not in the
//! format says nothing of which its lines could be relied upon.

use weir_config::model::MetricSelector;

/// Longest line, bytes.
const LINE_MAX: usize = 8 * 1024;

/// Why a text has no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ExpositionError {
    #[error("line {0} is longer than {LINE_MAX} bytes")]
    LongLine(u32),
    #[error("line {0} is no sample")]
    NoSample(u32),
    #[error("the metric's value in line {0} is not a number from zero on")]
    NoAmount(u32),
    #[error("the metric is not in it")]
    Missing,
}

/// Reads a text in pieces.
#[derive(Debug)]
pub(super) struct Exposition<'a> {
    selector: &'a MetricSelector,
    line: Vec<u8>,
    lines: u32,
    sum: Option<f64>,
}

impl<'a> Exposition<'a> {
    pub(super) fn new(selector: &'a MetricSelector) -> Self {
        Self { selector, line: Vec::new(), lines: 0, sum: None }
    }

    /// The next piece.
    pub(super) fn push(&mut self, mut bytes: &[u8]) -> Result<(), ExpositionError> {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            self.append(&bytes[..end])?;
            self.end_line()?;
            bytes = &bytes[end + 1..];
        }
        self.append(bytes)
    }

    /// Whether the text ends in the middle of a line.
    pub(super) fn is_cut(&self) -> bool {
        !self.line.is_empty()
    }

    /// The sum of all samples that are meant. The text is complete.
    pub(super) fn finish(mut self) -> Result<f64, ExpositionError> {
        if self.is_cut() {
            self.end_line()?;
        }
        // Of finite values the sum may still be none.
        self.sum.map(|sum| sum.min(f64::MAX)).ok_or(ExpositionError::Missing)
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), ExpositionError> {
        if self.line.len() + bytes.len() > LINE_MAX {
            return Err(ExpositionError::LongLine(self.lines + 1));
        }
        self.line.extend_from_slice(bytes);
        Ok(())
    }

    fn end_line(&mut self) -> Result<(), ExpositionError> {
        self.lines += 1;
        let line = std::str::from_utf8(&self.line).map_err(|_| ExpositionError::NoSample(self.lines))?;
        let line = line.trim_matches([' ', '\t', '\r']);
        if !line.is_empty() && !line.starts_with('#') {
            let sample = Sample::parse(line).ok_or(ExpositionError::NoSample(self.lines))?;
            if sample.is_meant(self.selector) {
                let is_amount = sample.value.is_finite() && sample.value >= 0.0;
                let value = is_amount.then_some(sample.value).ok_or(ExpositionError::NoAmount(self.lines))?;
                self.sum = Some(self.sum.unwrap_or(0.0) + value);
            }
        }
        self.line.clear();
        Ok(())
    }
}

/// One line.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Sample<'a> {
    name: &'a str,
    /// What is between the braces, and what follows.
    labels: Option<&'a str>,
    value: f64,
}

impl<'a> Sample<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let end = line.find(|c: char| !is_name(c) && c != ':').unwrap_or(line.len());
        let (name, rest) = line.split_at(end);
        if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
            return None;
        }
        let (labels, rest) = match rest.trim_start_matches(BLANK).strip_prefix('{') {
            Some(labels) => (Some(labels), read_labels(labels, |_, _| {})?),
            None => (None, rest.starts_with(BLANK).then_some(rest)?),
        };
        let mut words = rest.split(BLANK).filter(|word| !word.is_empty());
        let value = words.next()?.parse().ok()?;
        let timestamp = words.next().map(str::parse::<i64>);
        let is_whole = timestamp.is_none_or(|parsed| parsed.is_ok()) && words.next().is_none();
        is_whole.then_some(Self { name, labels, value })
    }

    fn is_meant(&self, selector: &MetricSelector) -> bool {
        let has = |(name, value): (&String, &String)| {
            let mut found = false;
            let note = |label: &str, text: &str| found |= label == name && is_escaped(text, value);
            self.labels.and_then(|labels| read_labels(labels, note)).is_some() && found
        };
        self.name == selector.name && selector.labels.iter().all(has)
    }
}

const BLANK: [char; 2] = [' ', '\t'];

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// Reads labels up to the closing brace, and tells `label` of each one's name and value, the latter still with its
/// escapes; what follows.
fn read_labels<'a>(mut rest: &'a str, mut label: impl FnMut(&'a str, &'a str)) -> Option<&'a str> {
    loop {
        rest = rest.trim_start_matches(BLANK);
        if let Some(rest) = rest.strip_prefix('}') {
            return Some(rest);
        }
        let (name, after) = rest.split_at(rest.find(|c| !is_name(c))?);
        if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
            return None;
        }
        let text = after.trim_start_matches(BLANK).strip_prefix('=')?;
        let text = text.trim_start_matches(BLANK).strip_prefix('"')?;
        let end = closing_quote(text)?;
        label(name, &text[..end]);
        rest = text[end + 1..].trim_start_matches(BLANK);
        rest = match rest.strip_prefix(',') {
            Some(rest) => rest,
            None => rest.starts_with('}').then_some(rest)?,
        };
    }
}

fn closing_quote(text: &str) -> Option<usize> {
    let mut is_escape = false;
    text.bytes().position(|byte| {
        let closes = byte == b'"' && !is_escape;
        is_escape = byte == b'\\' && !is_escape;
        closes
    })
}

/// Whether `text`, with escapes, is `value`, without.
fn is_escaped(text: &str, value: &str) -> bool {
    let (mut text, mut value) = (text.chars(), value.chars());
    loop {
        let next = match text.next() {
            Some('\\') => match text.next() {
                Some('n') => Some('\n'),
                escaped => escaped,
            },
            plain => plain,
        };
        match (next, value.next()) {
            (None, None) => return true,
            (next, expected) if next == expected => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests;
