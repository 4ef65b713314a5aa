//! One key's value on its way into the model: absent, wrong (and reported), or valid.

use crate::error::Sink;
use crate::key::{Located, Place};

/// What a key holds.
enum State<T> {
    Absent,
    /// Reported already.
    Invalid,
    Valid(T),
}

/// A key that was looked up. What becomes of it when absent is decided by the method that ends the chain; they all
/// answer `None` for a wrong value, so that no later check builds on it.
#[must_use]
pub(crate) struct Field<'s, T> {
    place: Place,
    state: State<T>,
    sink: &'s Sink,
}

impl<'s, T> Field<'s, T> {
    /// An absent key; `place` is that of its table, with the key's path.
    pub(crate) fn absent(place: Place, sink: &'s Sink) -> Self {
        Self { place, state: State::Absent, sink }
    }

    /// A present key. Reports the value if it is wrong.
    pub(crate) fn present(place: Place, value: Result<T, String>, sink: &'s Sink) -> Self {
        let state = match value {
            Ok(value) => State::Valid(value),
            Err(message) => {
                sink.report(&place, message);
                State::Invalid
            }
        };
        Self { place, state, sink }
    }

    /// A present key whose value is wrong in parts that were reported by themselves.
    pub(crate) fn reported(place: Place, sink: &'s Sink) -> Self {
        Self { place, state: State::Invalid, sink }
    }

    /// Holds a valid value against a rule; its error is the message.
    pub(crate) fn check(self, rule: impl FnOnce(&T) -> Result<(), String>) -> Self {
        match self.state {
            State::Valid(value) => {
                let checked = rule(&value).map(|()| value);
                Self::present(self.place, checked, self.sink)
            }
            State::Absent | State::Invalid => self,
        }
    }

    /// The value, or this default.
    pub(crate) fn or(self, default: T) -> Option<Located<T>> {
        match self.state {
            State::Absent => Some(Located { value: default, place: self.place }),
            State::Invalid => None,
            State::Valid(value) => Some(Located { value, place: self.place }),
        }
    }

    /// The value; reports its absence.
    pub(crate) fn required(self) -> Option<Located<T>> {
        match self.state {
            State::Absent => {
                self.sink.report(&self.place, "required key is missing");
                None
            }
            State::Invalid => None,
            State::Valid(value) => Some(Located { value, place: self.place }),
        }
    }

    /// The value if there is one.
    pub(crate) fn optional(self) -> Option<Option<Located<T>>> {
        match self.state {
            State::Absent => Some(None),
            State::Invalid => None,
            State::Valid(value) => Some(Some(Located { value, place: self.place })),
        }
    }
}
