//! What a route does to a request before, or instead of, sending it to a pool.
//!
//! ```text
//!  route found --> address --> rules --> method --> sizes --> client's places, who --> an answer of weir's own (wakes no pool)
//!                    403      400 to 599   405     413, 431         429, 401   `-> pool: lease, rewrite, edits, VM <-- body, 413
//!  answer <-- edits <-- CORS <-- the VM's, or weir's own
//! ```
//!
//! Everything is made ready when the configuration is read ([`Filters::new`]), and a route that has none of it costs a
//! request one look at an empty `Option`. What is refused is answered like any other refusal, and counted in
//! `weir_filter_refusals_total`.

mod client;
mod cors;
mod edits;
mod enter;
mod fixed;
mod networks;
mod per_client;
mod redirect;
mod rewrite;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Method, header};
use pingora::http::{RequestHeader, ResponseHeader};
use weir_config::model::{self, BlockList, Edits};

use crate::answer::{Field, Refusal};
use crate::auth::{Auth, Identified, Verifiers};
use crate::follow::{Follow, Followed};
use crate::metrics::Metrics;
use crate::request::header_bytes;
use crate::rules::{Facts, Rules};

pub(crate) use client::TrustedProxies;
use cors::Cors;
pub(crate) use fixed::Answer;
pub(crate) use networks::Networks;
pub(crate) use per_client::{PerClient, Place};
use rewrite::PathRewrite;

/// A route's filters, ready for use.
#[derive(Debug)]
pub(crate) struct Filters {
    allow: Option<Networks>,
    deny: Networks,
    block_list: Option<Arc<Followed<BlockList, Networks>>>,
    rules: Option<Rules>,
    methods: Option<Methods>,
    max_header: Option<u64>,
    max_body: Option<u64>,
    per_client: Option<PerClient>,
    rewrite: Option<PathRewrite>,
    cors: Option<Cors>,
    pub(crate) auth: Option<Auth>,
    request: Edits,
    response: Edits,
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
    pub(crate) fn new(
        route: &model::Route,
        metrics: &Metrics,
        verifiers: &Arc<Verifiers>,
    ) -> Option<Box<Self>> {
        let filter = &route.filter;
        let none = route.methods.is_none() && route.rewrite.is_none() && route.cors.is_none();
        if none && route.auth.is_none() && *filter == model::Filter::default() {
            return None;
        }
        Some(Box::new(Self {
            allow: filter.allow.as_deref().map(Networks::new),
            deny: Networks::new(&filter.deny),
            block_list: filter
                .block_list
                .as_ref()
                .map(|file| Followed::new(file, |list| Networks::new(&list.0))),
            rules: (!filter.rules.is_empty())
                .then(|| Rules::new(&filter.rules, metrics.rule_errors(&route.name))),
            methods: route.methods.as_deref().map(Methods::new),
            max_header: filter.max_header,
            max_body: filter.max_body,
            per_client: filter.max_in_flight_per_client.map(PerClient::new),
            rewrite: route.rewrite.as_ref().map(|rewrite| PathRewrite::new(rewrite, &route.path)),
            cors: route.cors.as_ref().map(Cors::new),
            auth: route.auth.as_ref().map(|auth| Auth::new(auth, verifiers)),
            request: filter.request.clone(),
            response: filter.response.clone(),
        }))
    }

    /// Whether the request, over a connection with TLS or without, may go on; with its place among its client's requests, if the route counts them.
    pub(crate) fn admit(
        &self,
        request: &RequestHeader,
        client: Option<IpAddr>,
        tls: bool,
    ) -> Result<Option<Place>, Refused> {
        self.admit_address(client)?;
        if let Some(rules) = &self.rules
            && let Some(status) = rules.refuse(&Facts::new(request, client, tls))
        {
            return Err(Refusal::Rule(status).into());
        }
        if let Some(methods) = &self.methods {
            methods.admit(&request.method)?;
        }
        if self.max_header.is_some_and(|max| header_bytes(request) as u64 > max) {
            return Err(Refusal::HeaderTooLarge.into());
        }
        if self.max_body.is_some_and(|max| content_length(request).is_some_and(|length| length > max)) {
            return Err(Refusal::BodyTooLarge.into());
        }
        // Last: what is refused takes no place.
        let Some(per_client) = &self.per_client else { return Ok(None) };
        let client = client.unwrap_or(Ipv4Addr::UNSPECIFIED.into()).into();
        per_client.enter(client).map(Some).ok_or(Refusal::TooManyInFlight.into())
    }

    /// Files that they are made from.
    pub(crate) fn files(&self) -> Vec<Arc<dyn Follow>> {
        let block_list = self.block_list.iter().map(|file| Arc::clone(file) as _);
        block_list.chain(self.auth.iter().map(Auth::file)).collect()
    }

    /// Who is denied or blocked is so even if allowed, too; who has no address is in no list.
    fn admit_address(&self, client: Option<IpAddr>) -> Result<(), Refused> {
        let is_in = |networks: &Networks| client.is_some_and(|client| networks.contains(client));
        let is_blocked = || self.block_list.as_ref().is_some_and(|list| is_in(&list.get()));
        if is_in(&self.deny) || is_blocked() || self.allow.as_ref().is_some_and(|allow| !is_in(allow)) {
            return Err(Refusal::AddressDenied.into());
        }
        Ok(())
    }

    /// Whether a body may be so large, bytes.
    fn takes_body(&self, bytes: u64) -> bool {
        self.max_body.is_none_or(|max| bytes <= max)
    }

    /// The answer to a browser's question before a request, if this is one that weir answers.
    pub(crate) fn preflight(
        &self,
        request: &RequestHeader,
        client: Option<IpAddr>,
    ) -> pingora::Result<Option<Box<ResponseHeader>>> {
        match &self.cors {
            Some(cors) if self.admit_address(client).is_ok() => cors.preflight(request),
            _ => Ok(None),
        }
    }

    /// Changes the header that a VM gets, which is complete otherwise. `who`: whom it comes from, if the route asks.
    pub(crate) fn edit_request(
        &self,
        who: Option<&Identified>,
        request: &mut RequestHeader,
    ) -> pingora::Result<()> {
        if let Some(auth) = &self.auth {
            auth.tell(who, request)?;
        }
        edits::edit_request(&self.request, request)
    }

    /// Changes the header that a client gets in answer to `request`.
    pub(crate) fn edit_response(
        &self,
        request: &HeaderMap,
        response: &mut ResponseHeader,
    ) -> pingora::Result<()> {
        if let Some(cors) = &self.cors {
            cors.apply(request, response)?;
        }
        edits::edit_response(&self.response, response)
    }

    /// Makes the path the one that a VM gets, after the request is in origin form.
    pub(crate) fn rewrite(&self, request: &mut RequestHeader) -> pingora::Result<()> {
        match &self.rewrite {
            Some(rewrite) => rewrite.apply(request),
            None => Ok(()),
        }
    }
}

/// The length that the request gives its body, which is a number (see
/// [`crate::request::has_one_framing`]); one of more than 64 bits is the largest that there is.
fn content_length(request: &RequestHeader) -> Option<u64> {
    let length = request.headers.get(header::CONTENT_LENGTH)?.to_str().ok()?;
    Some(length.parse().unwrap_or(u64::MAX))
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
