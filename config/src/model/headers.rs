//! What a route changes in headers.

use std::time::Duration;

use http::{HeaderName, HeaderValue, Method};

/// Changes of a header's fields, in this order. No field that frames a message or is for one hop is among them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Edits {
    /// Fields that go.
    pub remove: Vec<HeaderName>,
    /// Fields that take the place of all of their name.
    pub set: Vec<(HeaderName, HeaderValue)>,
    /// Fields that are added to those of their name.
    pub add: Vec<(HeaderName, HeaderValue)>,
}

impl Edits {
    /// Whether there is nothing to change.
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.set.is_empty() && self.add.is_empty()
    }
}

/// `[route.cors]`: what pages of other origins may do (Fetch standard, "CORS protocol").
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cors {
    /// Whose pages.
    pub origins: Origins,
    /// What they may ask for, each once and not none.
    pub methods: Vec<Method>,
    /// Fields that they may send.
    pub headers: Vec<HeaderName>,
    /// Fields of an answer that they may read.
    pub expose_headers: Vec<HeaderName>,
    /// Whether cookies go with it; not with [`Origins::Any`].
    pub credentials: bool,
    /// How long a browser may remember this. Whole seconds count.
    pub max_age: Duration,
}

/// `route.cors.origins`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origins {
    /// `*`.
    Any,
    /// These, as browsers write them: scheme, host in lower case, and a port if it is not the scheme's own.
    These(Vec<String>),
}
