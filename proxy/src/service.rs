//! The request's way through pingora's hooks.
//!
//! ```text
//!  early_request_filter   connection settings
//!  request_filter         host, path -> route                          400, 404
//!  proxy_upstream_filter  the pool's lease; waits                      503
//!  upstream_peer          the lease's VM; on a retry another lease     503
//!  upstream_request_filter, upstream_response_filter, response_filter  headers
//!  fail_to_connect, error_while_proxy                                  retry?
//!  fail_to_proxy                                                       502, 504
//!  logging                lease given back, metrics, access log
//! ```

use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Acquire};
use std::time::{Duration, Instant, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use http::{StatusCode, Version, header};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::modules::http::HttpModules;
use pingora::protocols::Digest;
use pingora::protocols::http::authority::{RawTargetAuthority, raw_target_authority};
use pingora::proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session};
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorSource, ErrorType};
use weir_config::model::Config;
use weir_pool::{Lease, Pools};

use crate::access_log::AccessLog;
use crate::answer::Refusal;
use crate::context::{Context, End, Route};
use crate::headers;
use crate::in_flight::InFlight;
use crate::metrics::{Metrics, RouteSeries};
use crate::retry::{RETRIES_MAX, RetryBudget};
use crate::routes::Router;
use crate::serve::{ServeError, Timeouts};
use crate::target;
use crate::trace::TRACEPARENT;
use crate::upstream::{Traffic, Upstreams};

/// Bodies up to this, bytes, are written to a VM in one go or fit into its connection's buffers.
const SMALL_BODY: u64 = 64 * 1024;

/// The proxy as pingora drives it.
#[derive(Debug)]
pub(crate) struct Proxy {
    router: Router<Arc<Route>>,
    /// Requests that found no route.
    pub(crate) unrouted: RouteSeries,
    pub(crate) metrics: Metrics,
    pub(crate) access_log: AccessLog,
    timeouts: Timeouts,
    in_flight: InFlight,
    draining: Arc<AtomicBool>,
    upstreams: Arc<Upstreams>,
    retries: RetryBudget,
    made: Instant,
}

/// Why a wait for a lease ended without one.
enum NoLease {
    Refused(Refusal),
    ClientGone(Box<Error>),
}

impl Proxy {
    pub(crate) fn new(
        config: &Config,
        pools: &Pools,
        metrics: Metrics,
        access_log: AccessLog,
        timeouts: Timeouts,
        in_flight: InFlight,
        draining: Arc<AtomicBool>,
    ) -> Result<Self, ServeError> {
        let route = |config: &Arc<weir_config::model::Route>| {
            let (route, pool) = (config.name.clone(), config.pool.clone());
            let Some(found) = pools.get(&pool) else { return Err(ServeError::NoPool { route, pool }) };
            let series = metrics.route(&route, &pool);
            Ok(Arc::new(Route { config: Arc::clone(config), pool: Arc::clone(found), series }))
        };
        let routes = config.routes.iter().map(route).collect::<Result<Vec<_>, _>>()?;
        let entries = config.routes.iter().zip(routes);
        Ok(Self {
            router: Router::new(entries.map(|(config, route)| (&config.host, config.path.as_str(), route))),
            unrouted: metrics.route("", ""),
            metrics,
            access_log,
            timeouts,
            in_flight,
            draining,
            upstreams: Upstreams::new(timeouts),
            retries: RetryBudget::default(),
            made: Instant::now(),
        })
    }

    fn since_made(&self) -> Duration {
        self.made.elapsed()
    }

    fn route(&self, request: &RequestHeader) -> Result<Arc<Route>, Refusal> {
        let (authority, target) = authority_and_target(request);
        if authority.is_none() && request.version != Version::HTTP_10 {
            return Err(Refusal::BadRequest);
        }
        let host = target::host(authority.unwrap_or_default()).map_err(|_| Refusal::BadRequest)?;
        let path = target::path(target).map_err(|_| Refusal::BadRequest)?;
        self.router.find(&host, &path).cloned().ok_or(Refusal::NoRoute)
    }

    /// Waits for a lease. pingora does not look at the client while a hook waits; here that is done, for requests
    /// without a body (a body on its way is left in the socket, and hides the client's end).
    async fn lease(&self, session: &mut Session, route: &Route) -> Result<Lease, NoLease> {
        let lease = route.pool.lease();
        let leased = if session.as_downstream_mut().is_body_done() {
            tokio::select! {
                biased;
                leased = lease => leased,
                client = session.as_downstream_mut().read_body_or_idle(true) => {
                    let gone = || Error::explain(ErrorType::ConnectionClosed, "client gone while waiting");
                    return Err(NoLease::ClientGone(client.err().unwrap_or_else(gone).into_down()));
                }
            }
        } else {
            lease.await
        };
        leased.map_err(|error| NoLease::Refused(Refusal::from(&error)))
    }

    /// Whether the request is sent once more, to another VM; `safe`: doing so cannot do its work twice.
    fn decide_retry(&self, ctx: &Context, safe: bool) -> bool {
        let retry = safe && ctx.tries <= RETRIES_MAX && self.retries.try_retry(self.since_made());
        if retry {
            self.metrics.retries.inc();
        }
        retry
    }
}

#[async_trait]
impl ProxyHttp for Proxy {
    type CTX = Context;

    fn new_ctx(&self) -> Context {
        self.retries.request(self.since_made());
        Context::new(self.in_flight.enter(), Instant::now(), SystemTime::now())
    }

    /// None: pingora's default, compression, is not what weir wants, and each module costs every request.
    fn init_downstream_modules(&self, _: &mut HttpModules) {}

    async fn early_request_filter(&self, session: &mut Session, _: &mut Context) -> pingora::Result<()> {
        let session = session.as_downstream_mut();
        // What the client wants (HTTP/1.0, `Connection: close`) is in there already; only the time limit is missing.
        if session.get_keepalive().is_some() {
            session.set_keepalive(Some(self.timeouts.idle.as_secs().max(1)));
        }
        session.set_pipelining_enabled(true);
        session.set_write_timeout(Some(self.timeouts.write));
        session.set_total_drain_timeout(Some(self.timeouts.write));
        Ok(())
    }

    async fn request_filter(&self, session: &mut Session, ctx: &mut Context) -> pingora::Result<bool> {
        ctx.join_trace(&session.req_header().headers);
        match self.route(session.req_header()) {
            Ok(route) => {
                ctx.route = Some(route);
                Ok(false)
            }
            Err(refusal) => {
                ctx.refusal = Some(refusal);
                self.close_if_draining(session);
                refusal.send(session).await?;
                Ok(true)
            }
        }
    }

    async fn proxy_upstream_filter(&self, session: &mut Session, ctx: &mut Context) -> pingora::Result<bool> {
        let route = ctx.route.clone().ok_or_else(no_route_chosen)?;
        match self.lease(session, &route).await {
            Ok(lease) => {
                ctx.hold(lease);
                Ok(true)
            }
            Err(NoLease::ClientGone(error)) => Err(error),
            Err(NoLease::Refused(refusal)) => {
                ctx.refusal = Some(refusal);
                self.close_if_draining(session);
                refusal.send(session).await?;
                Ok(false)
            }
        }
    }

    async fn upstream_peer(
        &self,
        session: &mut Session,
        ctx: &mut Context,
    ) -> pingora::Result<Box<HttpPeer>> {
        ctx.tries += 1;
        if ctx.tries > 1 {
            ctx.lease = None;
            let route = ctx.route.clone().ok_or_else(no_route_chosen)?;
            match self.lease(session, &route).await {
                Ok(lease) => ctx.hold(lease),
                Err(NoLease::ClientGone(error)) => return Err(error),
                Err(NoLease::Refused(refusal)) => {
                    ctx.refusal = Some(refusal);
                    return Error::e_explain(ErrorType::Custom("no lease"), refusal.word());
                }
            }
        }
        let lease = ctx.lease.as_ref().ok_or_else(no_route_chosen)?;
        Ok(self.upstreams.peer(lease, traffic(session.req_header())))
    }

    async fn connected_to_upstream(
        &self,
        session: &mut Session,
        _: bool,
        _: &HttpPeer,
        fd: RawFd,
        _: Option<&Digest>,
        ctx: &mut Context,
    ) -> pingora::Result<()> {
        ctx.pace = match traffic(session.req_header()) {
            Traffic::Exchange => None,
            Traffic::Duplex | Traffic::Tunnel => ctx.vm.and_then(|vm| self.upstreams.pace(vm, fd)),
        };
        Ok(())
    }

    async fn request_body_filter(
        &self,
        _: &mut Session,
        _: &mut Option<Bytes>,
        _: bool,
        ctx: &mut Context,
    ) -> pingora::Result<()> {
        if let Some(pace) = &mut ctx.pace {
            pace.wait().await;
        }
        Ok(())
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut RequestHeader,
        ctx: &mut Context,
    ) -> pingora::Result<()> {
        to_origin_form(request)?;
        let client =
            session.client_addr().and_then(|address| address.as_inet()).map(std::net::SocketAddr::ip);
        headers::forward_request(request, client, session.req_header().version)?;
        if let Some(traceparent) = ctx.new_traceparent.clone() {
            request.insert_header(TRACEPARENT, traceparent)?;
        }
        Ok(())
    }

    async fn upstream_response_filter(
        &self,
        _: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut Context,
    ) -> pingora::Result<()> {
        ctx.first_byte.get_or_insert_with(|| ctx.began.elapsed());
        headers::forward_response(response)
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        _: &mut Context,
    ) -> pingora::Result<()> {
        self.close_if_draining(session);
        if session.req_header().version == Version::HTTP_10
            && response.remove_header(&header::TRANSFER_ENCODING).is_some()
        {
            // HTTP/1.0 knows no chunks: the end of such a body is the end of the connection.
            session.set_keepalive(None);
        }
        Ok(())
    }

    fn fail_to_connect(
        &self,
        _: &mut Session,
        _: &HttpPeer,
        ctx: &mut Context,
        mut error: Box<Error>,
    ) -> Box<Error> {
        // Anything else (no descriptors left, say) is weir's own trouble, or means that the VM is gone already.
        let vms_fault = matches!(
            error.etype(),
            ErrorType::ConnectRefused | ErrorType::ConnectTimedout | ErrorType::ConnectNoRoute
        );
        if vms_fault && let Some(lease) = &ctx.lease {
            lease.suspect();
        }
        // Nothing of the request has been sent, whatever its method.
        error.set_retry(self.decide_retry(ctx, true));
        error
    }

    fn error_while_proxy(
        &self,
        _: &HttpPeer,
        session: &mut Session,
        mut error: Box<Error>,
        ctx: &mut Context,
        reused: bool,
    ) -> Box<Error> {
        if *error.esource() != ErrorSource::Upstream {
            error.set_retry(false);
            return error;
        }
        let timed_out = *error.etype() == ErrorType::ReadTimedout;
        // A kept connection may have been closed by a healthy VM at the moment of its use.
        if !reused
            && !timed_out
            && let Some(lease) = &ctx.lease
        {
            lease.suspect();
        }
        let replayable =
            session.req_header().method.is_idempotent() && !session.as_ref().retry_buffer_truncated();
        let safe = replayable && !timed_out && status_sent(session).is_none();
        error.set_retry(self.decide_retry(ctx, safe));
        error
    }

    async fn fail_to_proxy(&self, session: &mut Session, error: &Error, ctx: &mut Context) -> FailToProxy {
        let gone = FailToProxy { error_code: 0, can_reuse_downstream: false };
        if *error.esource() == ErrorSource::Downstream && *error.etype() != ErrorType::InvalidHTTPHeader {
            ctx.end = End::ClientGone;
            return gone;
        }
        if status_sent(session).is_some() {
            ctx.end = End::Truncated;
            self.metrics.truncated.inc();
            return gone;
        }
        let refusal = *ctx.refusal.get_or_insert_with(|| refusal_for(error));
        if refusal == Refusal::Internal {
            tracing::error!(%error, "request failed");
        } else {
            tracing::debug!(%error, vm = ctx.vm, "request failed");
        }
        session.set_keepalive(None);
        if let Err(error) = refusal.send(session).await {
            tracing::debug!(%error, "client gone before the answer");
            ctx.end = End::ClientGone;
        }
        FailToProxy { error_code: refusal.status().as_u16(), can_reuse_downstream: false }
    }

    async fn logging(&self, session: &mut Session, _: Option<&Error>, ctx: &mut Context) {
        // First of all: others may wait for the place.
        ctx.lease = None;
        self.record(session, ctx);
    }

    fn suppress_error_log(&self, _: &Session, _: &Context, _: &Error) -> bool {
        true
    }

    fn suppress_proxy_warn_log(&self, _: &Session, _: &Context, _: &Error, _: ProxyWarnLogContext) -> bool {
        true
    }
}

impl Proxy {
    fn close_if_draining(&self, session: &mut Session) {
        if self.draining.load(Acquire) {
            session.set_keepalive(None);
        }
    }
}

/// The authority that the request is for, if it names one, and its target without it. pingora has refused requests
/// whose authorities contradict each other.
pub(crate) fn authority_and_target(request: &RequestHeader) -> (Option<&[u8]>, &[u8]) {
    let host = request.headers.get(header::HOST).map(http::HeaderValue::as_bytes);
    match raw_target_authority(request.raw_path()) {
        RawTargetAuthority::Absolute { authority, path_and_query, .. } => (Some(authority), path_and_query),
        RawTargetAuthority::None | RawTargetAuthority::AmbiguousAuthority => {
            let authority = request.uri.authority().map(|authority| authority.as_str().as_bytes());
            (authority.or(host), request.raw_path())
        }
    }
}

/// `GET http://host/path` becomes `GET /path` with `Host: host`, as a server that is no proxy expects it.
fn to_origin_form(request: &mut RequestHeader) -> pingora::Result<()> {
    if let RawTargetAuthority::Absolute { authority, path_and_query, .. } =
        raw_target_authority(request.raw_path())
    {
        let (authority, target) = (authority.to_vec(), path_and_query.to_vec());
        request.set_raw_path(&target)?;
        request.insert_header(header::HOST, authority)?;
    }
    Ok(())
}

fn traffic(request: &RequestHeader) -> Traffic {
    let headers = &request.headers;
    if headers.get(header::UPGRADE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket")) {
        return Traffic::Tunnel;
    }
    let length =
        headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let large = headers.contains_key(header::TRANSFER_ENCODING)
        || headers.contains_key(header::CONTENT_LENGTH) && length.is_none_or(|length| length > SMALL_BODY);
    if large { Traffic::Duplex } else { Traffic::Exchange }
}

/// The status that the client got, if it got a final one.
pub(crate) fn status_sent(session: &Session) -> Option<StatusCode> {
    let is_final =
        |status: &StatusCode| !status.is_informational() || *status == StatusCode::SWITCHING_PROTOCOLS;
    session.response_written().map(|response| response.status).filter(is_final)
}

fn refusal_for(error: &Error) -> Refusal {
    match (error.esource(), error.etype()) {
        (ErrorSource::Upstream, ErrorType::ReadTimedout) => Refusal::UpstreamTimeout,
        (ErrorSource::Upstream, _) => Refusal::VmFailed,
        (ErrorSource::Downstream, _) => Refusal::BadRequest,
        _ => Refusal::Internal,
    }
}

/// Hooks run in an order that makes this impossible.
fn no_route_chosen() -> Box<Error> {
    Error::explain(ErrorType::InternalError, "no route or lease in context")
}
