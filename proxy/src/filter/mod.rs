//! What a route does to a request before, or instead of, sending it to a pool.
//!
//! ```text
//!  route found --> methods --> an answer of weir's own --> (no pool is woken)
//!                     | 405      `-> pool: lease, rewrite, VM
//! ```
//!
//! Everything is made ready when the configuration is read ([`Filters::new`]), and a route that has none of it costs a
//! request one look at an empty `Option`. What is refused is answered like any other refusal, and counted in
//! `weir_filter_refusals_total`.

mod enter;
mod fixed;
mod redirect;
mod rewrite;

use http::{HeaderValue, Method, header};
use pingora::http::RequestHeader;
use weir_config::model;

use crate::answer::{Field, Refusal};

pub(crate) use fixed::Answer;
use rewrite::PathRewrite;

/// A route's filters, ready for use.
#[derive(Debug)]
pub(crate) struct Filters {
    methods: Option<Methods>,
    rewrite: Option<PathRewrite>,
}

/// Why a request is not let through.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) refusal: Refusal,
    /// Goes into the answer's header.
    pub(crate) field: Option<Field>,
}

/// Methods that a route takes.
#[derive(Debug)]
struct Methods {
    taken: Box<[Method]>,
    /// Value of `Allow`.
    allow: HeaderValue,
}

impl Filters {
    /// The filters of a route; `None` if it has none.
    pub(crate) fn new(route: &model::Route) -> Option<Box<Self>> {
        let methods = route.methods.as_deref().map(Methods::new);
        let rewrite = route.rewrite.as_ref().map(|rewrite| PathRewrite::new(rewrite, &route.path));
        let any = methods.is_some() || rewrite.is_some();
        any.then(|| Box::new(Self { methods, rewrite }))
    }

    /// Whether the request may go on.
    pub(crate) fn admit(&self, request: &RequestHeader) -> Result<(), Refused> {
        match &self.methods {
            Some(methods) => methods.admit(&request.method),
            None => Ok(()),
        }
    }

    /// Makes the request the one that a VM gets, after it is in origin form.
    pub(crate) fn edit_request(&self, request: &mut RequestHeader) -> pingora::Result<()> {
        match &self.rewrite {
            Some(rewrite) => rewrite.apply(request),
            None => Ok(()),
        }
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, field: None }
    }
}

impl Methods {
    fn new(methods: &[Method]) -> Self {
        let names: Vec<_> = methods.iter().map(Method::as_str).collect();
        let allow = HeaderValue::from_str(&names.join(", ")).expect("methods are tokens");
        Self { taken: methods.into(), allow }
    }

    fn admit(&self, method: &Method) -> Result<(), Refused> {
        if self.taken.contains(method) {
            return Ok(());
        }
        Err(Refused { refusal: Refusal::MethodNotAllowed, field: Some((header::ALLOW, self.allow.clone())) })
    }
}
