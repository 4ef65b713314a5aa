//! `route.headers`: which header fields make a request a route's.

use http::{HeaderMap, HeaderName};

use super::Pattern;

/// A condition on one header field.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldMatch {
    /// Whose value it is about. A request that has it several times needs one that fits.
    pub name: HeaderName,
    /// What the value has to be.
    pub value: FieldValue,
}

/// What a field's value has to be.
#[derive(Clone, Debug, PartialEq)]
pub enum FieldValue {
    /// This.
    Is(String),
    /// Something that this finds something in.
    Matches(Pattern),
}

impl FieldMatch {
    /// What tells two conditions apart: name, kind and text.
    pub(crate) fn texts(&self) -> (&str, &'static str, &str) {
        match &self.value {
            FieldValue::Is(text) => (self.name.as_str(), "is", text),
            FieldValue::Matches(pattern) => (self.name.as_str(), "matches", pattern.regex().as_str()),
        }
    }

    /// Whether a request with this header fits.
    pub fn holds(&self, headers: &HeaderMap) -> bool {
        headers.get_all(&self.name).iter().any(|value| match &self.value {
            FieldValue::Is(text) => value.as_bytes() == text.as_bytes(),
            FieldValue::Matches(pattern) => pattern.regex().is_match(value.as_bytes()),
        })
    }
}
