//! `[route.affinity]`: requests that come back to the same VM.

use std::time::Duration;

use http::HeaderName;

/// What makes requests belong together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Affinity {
    /// A cookie that weir gives to clients.
    Session(SessionCookie),
    /// Something that they have anyway.
    Hash(AffinityKey),
}

/// A cookie that says which VM its client was served by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionCookie {
    /// A token (RFC 6265 §4.1.1), 1 to 64 characters.
    pub name: String,
    /// How long browsers keep it, whole seconds, at least one; `None`: until they end.
    pub max_age: Option<Duration>,
}

/// What of a request is hashed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AffinityKey {
    /// The client's address; of IPv6 its first 64 bits.
    Client,
    /// The first field of this name.
    Header(HeaderName),
    /// The first cookie of this name, a token.
    Cookie(String),
}
