//! What becomes of a route's requests: they go to a pool, with another path perhaps, or weir answers them.

use http::{HeaderName, HeaderValue, StatusCode};
use regex::bytes::Regex;

use super::Share;

/// Where a route leads to.
#[derive(Clone, Debug, PartialEq)]
pub enum Destination {
    /// To the pool of this name, which exists.
    Pool(String),
    /// Each to one of these pools, by chance.
    Split(Vec<Share>),
    /// To an answer that is always the same.
    Respond(Respond),
    /// To another address.
    Redirect(Redirect),
}

/// `route.respond`: an answer without a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Respond {
    /// 200 to 599.
    pub status: StatusCode,
    /// At most 64 KiB; empty where `status` has no body.
    pub body: String,
    /// Fields that neither frame the message nor are for one hop.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

/// `route.redirect`: an answer that sends the client elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// 301, 302, 303, 307 or 308.
    pub status: StatusCode,
    /// The location. Its beginning is literal up to the end of a scheme, or of the first segment's first character, so
    /// that no request's path can become an authority.
    pub to: Vec<Piece>,
}

/// A part of a redirect's location.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Itself; printable ASCII.
    Text(String),
    /// The request's host without a port.
    Host,
    /// The request's path, as it was sent, without a query.
    Path,
    /// The request's query with its question mark, or nothing.
    Query,
}

/// `route.rewrite`: the path that a VM gets instead of the client's. The query stays.
#[derive(Clone, Debug, PartialEq)]
pub enum Rewrite {
    /// Takes the place of the route's path: `/` or a path without a slash at its end.
    Prefix(String),
    /// What matches becomes `to`, in which `$1`, `$name` and `${name}` stand for groups that `pattern` has.
    Pattern {
        /// Is held against the path as routes are compared: decoded, each slash once.
        pattern: Pattern,
        /// Begins with `/`; printable ASCII.
        to: String,
    },
}

/// A regular expression, compiled within limits on its size. Two are equal if their texts are.
#[derive(Clone, Debug)]
pub struct Pattern(pub(crate) Regex);

impl Pattern {
    /// The expression.
    pub fn regex(&self) -> &Regex {
        &self.0
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}
