//! What a span says of its request: OpenTelemetry's semantic conventions for HTTP servers
//! (<https://opentelemetry.io/docs/specs/semconv/http/http-spans/>), and what only weir knows.
//!
//! Not the query, in which clients have secrets.

use std::time::{Duration, SystemTime};

use http::uri::Authority;
use http::{Version, header};
use pingora::proxy::Session;
use weir_pool::Start;

use super::Spans;
use super::json::{Attributes, INTERNAL, IS_REMOTE, KNOWS_REMOTE, SAMPLED, SERVER, SpanText, Status};
use super::span::{Span, Wake};
use crate::context::{Context, End};
use crate::proxy::Proxy;
use crate::request::authority_and_target;
use crate::service::has_tls;
use crate::trace::{Parent, TraceId};

/// Methods that have their own names in spans; others would be as many as clients can think of.
const METHODS: [&str; 9] = ["CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"];

impl Proxy {
    /// Takes part in the trace that a request belongs to, or begins one; with a span of its own, should it be exported.
    pub(crate) fn join_trace(&self, session: &Session, ctx: &mut Context) {
        let parent = Parent::of(&session.req_header().headers);
        let trace = ctx.join_trace(parent.as_ref());
        let Some(spans) = &self.spans else { return };
        let is_trusted = || {
            let peer = session.client_addr().and_then(|address| address.as_inet());
            peer.is_some_and(|peer| self.trusted_proxies.contain(peer.ip()))
        };
        ctx.span = spans.begin(parent, is_trusted);
        if let Some(span) = &ctx.span {
            ctx.traceparent = Some(span.traceparent(&trace));
        }
    }

    /// Has the span of a request that has ended exported, if it is to be. `status`: what the client got; `took`: since its
    /// header was read.
    pub(crate) fn export_span(&self, session: &Session, ctx: &Context, status: u16, took: Duration) {
        let (Some(spans), Some(span), Some(trace)) = (&self.spans, &ctx.span, &ctx.trace) else { return };
        let request = session.req_header();
        let method = request.method.as_str();
        let is_known = METHODS.contains(&method);
        let of_name = if is_known { method } else { "HTTP" };
        let path = route(ctx).map(|route| route.path.as_str());
        let mut attributes = Attributes::default();
        attributes.text("http.request.method", if is_known { method } else { "_OTHER" });
        if !is_known {
            attributes.text("http.request.method_original", method);
        }
        attributes.text("url.scheme", if has_tls(session) { "https" } else { "http" });
        of_request(&mut attributes, session);
        if let Some(client) = ctx.client {
            attributes.text("client.address", client.to_string());
        }
        attributes.int("http.response.status_code", status.into());
        of_way(&mut attributes, ctx, status);
        let is_remote = if span.continues_trace() { IS_REMOTE } else { 0 };
        spans.leave_text(&SpanText {
            trace_id: trace.as_str(),
            span_id: span.id.as_str(),
            parent_span_id: span.parent.as_ref().map(|parent| parent.span.as_str()),
            flags: SAMPLED | KNOWS_REMOTE | is_remote,
            name: &path.map_or_else(|| of_name.to_owned(), |path| format!("{of_name} {path}")),
            kind: SERVER,
            start_time_unix_nano: ctx.began_at,
            end_time_unix_nano: ctx.began_at + took,
            attributes,
            status: Status::of(status >= 500 || ctx.end == End::Truncated),
        });
        for wake in &span.wakes {
            spans.leave_text(&of_wake(wake, span, trace, ctx.began_at));
        }
    }
}

impl Spans {
    fn leave_text(&self, span: &SpanText<'_>) {
        match serde_json::to_vec(span) {
            Ok(text) => self.leave(text),
            Err(_) => self.metrics.dropped(1),
        }
    }
}

/// The route that it took, if any.
fn route(ctx: &Context) -> Option<&weir_config::model::Route> {
    let answering = ctx.answering.as_ref().map(|route| &route.config);
    ctx.route.as_ref().map(|route| &route.config).or(answering).map(AsRef::as_ref)
}

/// What the client says.
fn of_request<'a>(attributes: &mut Attributes<'a>, session: &'a Session) {
    let request = session.req_header();
    let (authority, target) = authority_and_target(request);
    let path = target.split(|byte| *byte == b'?').next().unwrap_or_default();
    attributes.text("url.path", String::from_utf8_lossy(path));
    // Whoever has another one has been refused.
    if let Some(Ok(authority)) = authority.map(Authority::try_from) {
        attributes.text("server.address", authority.host().to_owned());
        if let Some(port) = authority.port_u16() {
            attributes.int("server.port", port.into());
        }
    }
    let version = match request.version {
        Version::HTTP_2 => "2",
        Version::HTTP_10 => "1.0",
        _ => "1.1",
    };
    attributes.text("network.protocol.version", version);
    if let Some(agent) = request.headers.get(header::USER_AGENT) {
        attributes.text("user_agent.original", String::from_utf8_lossy(agent.as_bytes()));
    }
}

/// Where it went, and what went wrong there.
fn of_way<'a>(attributes: &mut Attributes<'a>, ctx: &'a Context, status: u16) {
    if let Some(route) = route(ctx) {
        attributes.text("http.route", route.path.as_str());
        attributes.text("weir.route", route.name.as_str());
    }
    if let Some(backing) = ctx.backing() {
        attributes.text("weir.pool", &*backing.name);
    }
    if let Some(vm) = ctx.vm {
        attributes.int("weir.vm", vm);
        attributes.double("weir.queue_ms", ctx.queued.as_secs_f64() * 1e3);
    }
    if let Some(start) = ctx.start {
        attributes.text("weir.start", start.label());
    }
    match ctx.error() {
        Some(word) => attributes.text("error.type", word),
        None if status >= 500 => attributes.text("error.type", status.to_string()),
        None => {}
    }
}

fn of_wake<'a>(wake: &'a Wake, of: &'a Span, trace: &'a TraceId, began: SystemTime) -> SpanText<'a> {
    let mut attributes = Attributes::default();
    attributes.text("weir.start", Start::label(wake.start));
    SpanText {
        trace_id: trace.as_str(),
        span_id: wake.id.as_str(),
        parent_span_id: Some(of.id.as_str()),
        flags: SAMPLED | KNOWS_REMOTE,
        name: "wake",
        kind: INTERNAL,
        start_time_unix_nano: began + wake.from,
        end_time_unix_nano: began + wake.to,
        attributes,
        status: Status::default(),
    }
}
