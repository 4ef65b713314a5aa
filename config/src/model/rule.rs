//! Rules of `[[route.filter.rule]]`: conditions in CEL, and what becomes of the requests that meet them.

use std::fmt;

use cel::IdedExpr;
use http::{HeaderName, StatusCode};
use ipnetwork::IpNetwork;

use super::Pattern;

/// One rule.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// Which requests it is about.
    pub when: Condition,
    /// What becomes of them.
    pub then: Then,
}

/// What a rule does with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// No rule below is asked.
    Allow,
    /// It is answered with this status, 400 to 599.
    Refuse(StatusCode),
}

/// A CEL expression that is a boolean, checked, and with what depends on no request already done.
#[derive(Clone)]
pub struct Condition {
    pub(crate) text: String,
    pub(crate) expression: IdedExpr,
    pub(crate) variables: Vec<Variable>,
}

/// What stands in a request's place in a [`Condition`]. Expressions, networks and names of header fields are literals, so
/// whatever needs them is a variable of its own, and evaluation has nothing left to compile.
#[derive(Clone, Debug, PartialEq)]
pub enum Variable {
    /// A string of the request's. A header field that is not there is an error.
    Text(Fact),
    /// Whether the connection has TLS.
    Tls,
    /// Whether there is such a header field.
    Present(HeaderName),
    /// Whether the string matches.
    Matches(Fact, Pattern),
    /// Whether the string is an address within the network; it is an error if it is none.
    Within(Fact, IpNetwork),
}

/// A string that a request has.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Fact {
    /// `request.method`.
    Method,
    /// `request.path`, as routes are compared: percent-encoding decoded, each slash once.
    Path,
    /// `request.query`, as it was sent, without the question mark.
    Query,
    /// `request.host`: lower case, without a port.
    Host,
    /// `request.http_version`: `1.0`, `1.1` or `2`.
    HttpVersion,
    /// `client.ip`; empty where there is none.
    ClientIp,
    /// `request.headers["…"]`: the values of all fields of this name, joined by `, `.
    Header(HeaderName),
}

impl Condition {
    /// The expression as it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The expression. Its only identifiers are decimal numbers, indices of [`Condition::variables`]; its only functions
    /// are those of CEL's standard library, called with arguments of the right types.
    pub fn expression(&self) -> &IdedExpr {
        &self.expression
    }

    /// What the expression's identifiers stand for.
    pub fn variables(&self) -> &[Variable] {
        &self.variables
    }

    /// The variable that an identifier of the expression stands for.
    pub fn variable(&self, identifier: &str) -> Option<&Variable> {
        self.variables.get(identifier.parse::<usize>().ok()?)
    }
}

impl fmt::Debug for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Condition").field(&self.text).finish()
    }
}

impl PartialEq for Condition {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}
