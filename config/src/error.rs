//! What is wrong with a configuration: many things at once, each with its key and where in the text it stands.

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use thiserror::Error;

use crate::key::Place;

/// Where in a text something stands.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Location {
    /// Name of the text, usually its path.
    pub source: Arc<str>,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.source, self.line, self.column)
    }
}

/// One mistake. Displayed on one line: `SOURCE:LINE:COLUMN: KEY: MESSAGE`, without the parts that are not known.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub struct ConfigError {
    /// Where it stands; `None` when the mistake is in the machine's state, not in the text.
    pub location: Option<Location>,
    /// Path of the key, such as `pool.hello.memory` or `route[2].path`; empty when the text is no TOML.
    pub key: String,
    /// What is wrong with the key's value.
    pub message: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(location) = &self.location {
            write!(f, "{location}: ")?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)
    }
}

/// Everything that is wrong with one text: at least one error, in the order of the text. Displayed one per line.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub struct ConfigErrors(Vec<ConfigError>);

impl ConfigErrors {
    /// The errors, in the order of the text.
    pub fn as_slice(&self) -> &[ConfigError] {
        &self.0
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.0.iter().enumerate() {
            write!(f, "{}{error}", if i == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

impl IntoIterator for ConfigErrors {
    type Item = ConfigError;
    type IntoIter = std::vec::IntoIter<ConfigError>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

/// Why a file is no configuration.
#[derive(Debug, Error)]
pub enum LoadError {
    /// The file cannot be read, or is not UTF-8.
    #[error("read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file's text is wrong.
    #[error(transparent)]
    Invalid(#[from] ConfigErrors),
}

/// Collects mistakes while a text is walked. Shared by all readers of one text, hence the cell.
#[derive(Default)]
pub(crate) struct Sink {
    found: RefCell<Vec<(Place, String)>>,
}

impl Sink {
    /// Records a mistake.
    pub(crate) fn report(&self, place: &Place, message: impl Into<String>) {
        self.found.borrow_mut().push((place.clone(), message.into()));
    }

    /// The mistakes found in `text`, if any.
    pub(crate) fn into_errors(self, text: &str, source: &str) -> Option<ConfigErrors> {
        let mut found = self.found.into_inner();
        // Stable: mistakes at the same position stay in the order in which they were found.
        found.sort_by_key(|(place, _)| place.offset);
        let source: Arc<str> = source.into();
        let lines = LineIndex::new(text);
        let errors = found.into_iter().map(|(Place { key, offset }, message)| {
            let (line, column) = lines.position(offset);
            ConfigError { location: Some(Location { source: source.clone(), line, column }), key, message }
        });
        let errors: Vec<_> = errors.collect();
        (!errors.is_empty()).then_some(ConfigErrors(errors))
    }
}

/// Translates byte offsets into lines and columns.
struct LineIndex<'t> {
    text: &'t str,
    /// Offset of each line's first byte; the first is 0.
    starts: Vec<usize>,
}

impl<'t> LineIndex<'t> {
    fn new(text: &'t str) -> Self {
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { text, starts }
    }

    /// Line and column, both from 1. An offset behind the end counts as the end.
    fn position(&self, offset: usize) -> (usize, usize) {
        let offset = self.text.floor_char_boundary(offset);
        let line = self.starts.partition_point(|start| *start <= offset);
        let start = self.starts[line - 1];
        (line, self.text[start..offset].chars().count() + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_characters_from_one() {
        let lines = LineIndex::new("a\nöb\n");
        let positions: Vec<_> = [0, 1, 2, 3, 4, 5, 6, 99].map(|at| lines.position(at)).into();
        assert_eq!(positions, [(1, 1), (1, 2), (2, 1), (2, 1), (2, 2), (2, 3), (3, 1), (3, 1)]);
        assert_eq!(LineIndex::new("").position(0), (1, 1));
    }

    #[test]
    fn errors_come_in_the_order_of_the_text() {
        let sink = Sink::default();
        for (offset, key) in [(4, "c"), (0, "a"), (4, "d"), (2, "b")] {
            sink.report(&Place { key: key.to_owned(), offset }, "wrong");
        }
        let errors = sink.into_errors("1\n2\n3\n", "f").expect("reported");
        assert_eq!(errors.to_string(), "f:1:1: a: wrong\nf:2:1: b: wrong\nf:3:1: c: wrong\nf:3:1: d: wrong");
    }

    #[test]
    fn unknown_parts_are_left_out() {
        let error = ConfigError { location: None, key: String::new(), message: "wrong".to_owned() };
        assert_eq!(error.to_string(), "wrong");
    }
}
