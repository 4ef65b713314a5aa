//! What remains of a request: one count, one duration, one line, and perhaps a span.

use std::net::IpAddr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use http::{HeaderValue, Version, header};
use pingora::proxy::Session;
use prometheus::IntCounter;
use weir_pool::Start;

use crate::access_log::{AccessLog, Record};
use crate::answer::Refusal;
use crate::context::Context;
use crate::in_flight::InFlight;
use crate::metrics::{CLIENT_GONE, RouteSeries};
use crate::proxy::Proxy;
use crate::request::{authority_and_target, status_sent};

/// Where requests that found no route are counted and written down.
#[derive(Debug)]
pub(crate) struct Unrouted {
    pub(crate) series: RouteSeries,
    pub(crate) access_log: AccessLog,
    /// Connections above their listener's limit.
    pub(crate) turned_away: IntCounter,
    /// Those that there are.
    pub(crate) connections: InFlight,
}

impl Unrouted {
    /// A request of `client` was refused before its header could be read.
    pub(crate) fn refused_unread(&self, refusal: Refusal, client: Option<IpAddr>) {
        self.series.ended(refusal.status().as_u16(), Duration::ZERO);
        let status = refusal.status().as_u16();
        if !self.access_log.wants(status) {
            return;
        }
        self.access_log.write(&Record {
            ts: timestamp(SystemTime::now()),
            client,
            status,
            error: Some(refusal.word()),
            ..Record::default()
        });
    }
}

impl Proxy {
    /// Counts and writes down a request that has ended, and has its span exported.
    pub(crate) fn record(&self, session: &Session, ctx: &Context) {
        let took = Instant::now().saturating_duration_since(ctx.began);
        let status = status_sent(session).map_or(CLIENT_GONE, |status| status.as_u16());
        let series = match (ctx.backing(), &ctx.answering) {
            (Some(backing), _) => &backing.series,
            (None, Some(route)) => &route.series,
            (None, None) => &self.unrouted.series,
        };
        series.ended(status, took);
        self.export_span(session, ctx, status, took);
        if self.unrouted.access_log.wants(status) {
            self.write_line(session, ctx, status, took);
        }
    }

    fn write_line(&self, session: &Session, ctx: &Context, status: u16, took: Duration) {
        let request = session.req_header();
        let (authority, _) = authority_and_target(request);
        let tls = session.as_downstream().digest().and_then(|digest| digest.ssl_digest.clone());
        let answering = ctx.answering.as_ref().map(|route| &route.config);
        let route = ctx.route.as_ref().map(|route| &route.config).or(answering);
        self.unrouted.access_log.write(&Record {
            ts: timestamp(ctx.began_at),
            client: ctx.client,
            user: ctx.identified.as_ref().and_then(|who| who.user.as_deref()),
            method: Some(request.method.as_str()),
            protocol: Some(protocol(request.version)),
            tls: tls.as_ref().map(|tls| tls.version.as_ref()),
            host: Some(&String::from_utf8_lossy(authority.unwrap_or_default())),
            path: Some(&String::from_utf8_lossy(request.raw_path())),
            status,
            route: route.map(|route| route.name.as_str()),
            pool: ctx.backing().map(|backing| backing.name.as_str()),
            vm: ctx.vm,
            start: ctx.start.map(Start::label),
            queue_ms: ctx.vm.map(|_| milliseconds(ctx.queued)),
            ttfb_ms: ctx.first_byte.map(milliseconds),
            duration_ms: milliseconds(took),
            bytes_in: session.as_downstream().body_bytes_read(),
            bytes_out: session.as_downstream().body_bytes_sent(),
            trace_id: ctx.trace.as_ref().map(|trace| trace.as_str()),
            error: ctx.error(),
            target: Some(request.raw_path()),
            referer: request.headers.get(header::REFERER).map(HeaderValue::as_bytes),
            user_agent: request.headers.get(header::USER_AGENT).map(HeaderValue::as_bytes),
        });
    }
}

/// As nginx and others write it.
fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_2 => "HTTP/2.0",
        Version::HTTP_10 => "HTTP/1.0",
        _ => "HTTP/1.1",
    }
}

/// Seconds since 1970, to the millisecond.
fn timestamp(at: SystemTime) -> f64 {
    milliseconds(at.duration_since(UNIX_EPOCH).unwrap_or_default()).round() / 1e3
}

/// To the microsecond.
fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}
