//! The request's way through pingora's hooks.
//!
//! ```text
//!  (before)               what pingora refuses, see `downstream`       400
//!  early_request_filter   connection settings
//!  request_filter         host, path -> route -> filters               400, 403 to 405, 413, 429, 431
//!  proxy_upstream_filter  the pool's lease; waits                      503
//!  upstream_peer          the lease's VM; on a retry another lease     503
//!  request_body_filter    the body's size                             413
//!  upstream_request_filter, upstream_response_filter, response_filter  headers
//!  response_body_filter, response_trailer_filter  compression
//!  fail_to_connect, error_while_proxy                                  retry?
//!  fail_to_proxy                                                       500, 502, 504
//!  logging                lease given back, metrics, access log
//! ```

use std::os::fd::RawFd;
use std::time::{Duration, Instant, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, StatusCode, Version, header};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::modules::http::HttpModules;
use pingora::protocols::Digest;
use pingora::proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session};
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorSource, ErrorType};

use crate::answer::Refusal;
use crate::context::{Context, End};
use crate::proxy::{NoLease, Proxy};
use crate::request::{is_final, status_sent, to_origin_form, traffic};
use crate::resilience::is_interception;
use crate::retry::RETRIES_MAX;
use crate::trace::{TRACEPARENT, TRACESTATE};
use crate::upstream::{Pace, Traffic};
use crate::{downstream, headers, hsts, tenancies, timing};

#[async_trait]
impl ProxyHttp for Proxy {
    type CTX = Context;

    fn new_ctx(&self) -> Context {
        Context::new(self.in_flight.enter(), Instant::now(), SystemTime::now())
    }

    /// None: pingora's default, compression, is not what weir wants, and each module costs every request.
    fn init_downstream_modules(&self, _: &mut HttpModules) {}

    async fn early_request_filter(&self, session: &mut Session, _: &mut Context) -> pingora::Result<()> {
        downstream::hooks_begin(session);
        let idle_timeout = downstream::idle_timeout(session).unwrap_or_default();
        let session = session.as_downstream_mut();
        // What the client wants (HTTP/1.0, `Connection: close`) is in there already; only the time limit is missing.
        if session.get_keepalive().is_some() {
            // Whole seconds.
            session.set_keepalive(Some(idle_timeout.as_secs().max(1)));
        }
        session.set_pipelining_enabled(true);
        // It would hold for tunnels, too; see `patience`.
        session.set_read_timeout(None);
        session.set_write_timeout(Some(self.timeouts.write));
        session.set_total_drain_timeout(Some(self.timeouts.write));
        Ok(())
    }

    async fn request_filter(&self, session: &mut Session, ctx: &mut Context) -> pingora::Result<bool> {
        self.join_trace(session, ctx);
        ctx.client = self.client(session);
        let routed = self.route(session.req_header());
        if self.challenges.are_pending()
            && matches!(routed, Ok(_) | Err(Refusal::NoRoute))
            && let Some(file) = self.challenge(session.req_header(), has_tls(session))
        {
            self.show_challenge(session, file).await?;
            return Ok(true);
        }
        match routed {
            Ok(_) | Err(Refusal::NoRoute) if tenancies::redirects_https(session) => {
                self.redirect_https(session, ctx).await?;
                Ok(true)
            }
            Ok(found) => self.enter(session, ctx, found).await,
            Err(refusal) => {
                self.refuse(session, ctx, refusal, None).await?;
                Ok(true)
            }
        }
    }

    async fn proxy_upstream_filter(&self, session: &mut Session, ctx: &mut Context) -> pingora::Result<bool> {
        let route = ctx.route.clone().ok_or_else(no_route_chosen)?;
        let deadline = ctx.deadline();
        match Self::in_time(deadline, self.lease_or_fall_back(session, &route, ctx)).await {
            Ok(lease) => {
                ctx.hold(lease);
                Ok(true)
            }
            Err(NoLease::ClientGone(error)) => Err(error),
            Err(NoLease::Refused(refusal)) => {
                self.refuse(session, ctx, refusal, None).await?;
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
            let route = ctx.route.clone().ok_or_else(no_route_chosen)?;
            if let Err(refusal) = self.end_try(ctx).await
                && !self.fall_back(&route, ctx, refusal)
            {
                ctx.refusal = Some(refusal);
                return Error::e_explain(ErrorType::Custom("no retry"), refusal.word());
            }
            let deadline = ctx.deadline();
            match Self::in_time(deadline, self.lease_or_fall_back(session, &route, ctx)).await {
                Ok(lease) => ctx.hold(lease),
                Err(NoLease::ClientGone(error)) => return Err(error),
                Err(NoLease::Refused(refusal)) => {
                    ctx.refusal = Some(refusal);
                    return Error::e_explain(ErrorType::Custom("no lease"), refusal.word());
                }
            }
        }
        let lease = ctx.lease.as_ref().ok_or_else(no_route_chosen)?;
        lease.asked();
        let traffic = *ctx.traffic.get_or_insert_with(|| traffic(session));
        if traffic == Traffic::Exchange {
            lease.timed();
        }
        let pool = &ctx.backing().ok_or_else(no_route_chosen)?.pool;
        Ok(self.upstreams.peer(lease, pool, traffic, ctx.silence()))
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
        ctx.sent = true;
        let traffic = ctx.traffic.unwrap_or(Traffic::Exchange);
        let pace = match traffic {
            Traffic::Exchange => None,
            Traffic::Duplex | Traffic::Tunnel => ctx.vm.and_then(|vm| self.upstreams.pace(vm, fd)),
        };
        if let Some(pace) = &pace
            && traffic == Traffic::Tunnel
        {
            let route = ctx.route.as_ref().ok_or_else(no_route_chosen)?;
            pace.ask_switch(self.timeouts.read, route.config.filter.patience.tunnel_idle_timeout);
        }
        self.watch(session, ctx, fd, pace.as_ref());
        ctx.pace.clone_from(&pace);
        downstream::hold_by(session, pace);
        Ok(())
    }

    async fn request_body_filter(
        &self,
        session: &mut Session,
        part: &mut Option<Bytes>,
        ends: bool,
        ctx: &mut Context,
    ) -> pingora::Result<()> {
        self.body_came(session, ctx, part.as_ref().map_or(0, Bytes::len), ends);
        self.admit_body(session, ctx)?;
        self.copy_body(part.as_ref(), ends, ctx);
        if ctx.traffic == Some(Traffic::Duplex) && ctx.pace.is_none() {
            // pingora's other half, which takes the answer, has its turn before each part: see `upstream`'s `h2c`.
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut RequestHeader,
        ctx: &mut Context,
    ) -> pingora::Result<()> {
        #[cfg(test)]
        assert!(!request.headers.contains_key(crate::testing::PANIC), "asked to panic");
        to_origin_form(request)?;
        if let Some(filters) = ctx.route.as_ref().and_then(|route| route.filters.as_ref()) {
            filters.rewrite(request)?;
        }
        ctx.asks_upgrade = request.headers.contains_key(header::UPGRADE);
        let client =
            session.client_addr().and_then(|address| address.as_inet()).map(std::net::SocketAddr::ip);
        let scheme = if has_tls(session) { "https" } else { "http" };
        headers::identify_client(request, tenancies::identity(session))?;
        headers::forward_request(request, client, scheme, session.req_header().version)?;
        // HTTP/1.0 knows requests without; the VM is asked in HTTP/1.1.
        if !request.headers.contains_key(header::HOST)
            && let Some(lease) = &ctx.lease
        {
            request.insert_header(header::HOST, lease.address().to_string())?;
        }
        if let Some(traceparent) = ctx.traceparent.clone() {
            request.insert_header(TRACEPARENT, traceparent)?;
            if !ctx.span.as_ref().is_some_and(|span| span.continues_trace()) {
                request.remove_header(TRACESTATE);
            }
        }
        if let Some(filters) = ctx.route.as_ref().and_then(|route| route.filters.as_ref()) {
            filters.edit_request(ctx.identified.as_deref(), request)?;
        }
        self.begin_copy(session, request, ctx);
        Ok(())
    }

    async fn upstream_response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut Context,
    ) -> pingora::Result<()> {
        // What follows would be no HTTP, to a client that expects HTTP.
        if response.status == StatusCode::SWITCHING_PROTOCOLS && !ctx.asks_upgrade {
            return Err(
                Error::explain(ErrorType::InvalidHTTPHeader, "switch that was not asked for").into_up()
            );
        }
        if response.status == StatusCode::SWITCHING_PROTOCOLS
            && let Some(pace) = &ctx.pace
        {
            pace.switched();
            ctx.watch = None;
        }
        ctx.first_byte.get_or_insert_with(|| ctx.began.elapsed());
        if let Some(lease) = &ctx.lease {
            lease.answered();
        }
        if let Some(permit) = &ctx.permit
            && is_final(response.status)
        {
            let failed = response.status.is_server_error() && permit.counts_server_errors();
            ctx.settle(!failed, || self.since_made());
        }
        self.intercept(session.req_header(), response, ctx)?;
        headers::forward_response(response)
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut Context,
    ) -> pingora::Result<()> {
        self.close_if_draining(session);
        self.limit_write(session, ctx)?;
        hsts::apply(session, response)?;
        if session.req_header().version == Version::HTTP_10
            && response.remove_header(&header::TRANSFER_ENCODING).is_some()
        {
            // HTTP/1.0 knows no chunks: the end of such a body is the end of the connection.
            session.set_keepalive(None);
        }
        let Some(route) = &ctx.route else { return Ok(()) };
        if route.config.server_timing {
            timing::add(ctx, response)?;
        }
        if let Some(filters) = &route.filters {
            filters.edit_response(&session.req_header().headers, response)?;
        }
        self.remember(session, ctx, response)?;
        if let Some(rules) = &route.config.compress {
            ctx.compressed = self.compressing.begin(rules, session.req_header(), response)?;
        }
        Ok(())
    }

    fn response_body_filter(
        &self,
        session: &mut Session,
        body: &mut Option<Bytes>,
        ends: bool,
        ctx: &mut Context,
    ) -> pingora::Result<Option<Duration>> {
        if let Some(compressed) = &mut ctx.compressed {
            compressed.pass(body, ends)?;
        }
        self.limit_write(session, ctx)?;
        Ok(None)
    }

    async fn response_trailer_filter(
        &self,
        _: &mut Session,
        _: &mut HeaderMap,
        ctx: &mut Context,
    ) -> pingora::Result<Option<Bytes>> {
        // Only now is it known that the body has ended. What is returned goes in the trailer's place.
        let mut rest = None;
        if let Some(compressed) = &mut ctx.compressed {
            compressed.pass(&mut rest, true)?;
        }
        Ok(rest)
    }

    fn fail_to_connect(
        &self,
        _: &mut Session,
        _: &HttpPeer,
        ctx: &mut Context,
        mut error: Box<Error>,
    ) -> Box<Error> {
        // Anything else means that the VM is gone already, or is weir's own trouble, which another VM does not end.
        let own_trouble = *error.etype() == ErrorType::InternalError;
        let vms_fault = matches!(
            error.etype(),
            ErrorType::ConnectRefused | ErrorType::ConnectTimedout | ErrorType::ConnectNoRoute
        );
        if vms_fault && let Some(lease) = &ctx.lease {
            lease.suspect();
        }
        if !own_trouble {
            ctx.settle(false, || self.since_made());
        }
        // Nothing of the request has been sent, whatever its method.
        error.set_retry(!own_trouble && ctx.tries <= RETRIES_MAX);
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
        if *error.esource() != ErrorSource::Upstream || is_interception(&error) {
            error.set_retry(false);
            return error;
        }
        if ctx.late().is_some() {
            error.set_retry(false);
            return error;
        }
        let late = ctx.pace.as_ref().is_some_and(Pace::is_late);
        if late {
            // To pingora it is a connection that was closed.
            ctx.refusal = Some(Refusal::UpstreamTimeout);
        }
        let timed_out = late || *error.etype() == ErrorType::ReadTimedout;
        if !timed_out {
            ctx.blame.broke();
            self.lost(session, ctx);
        }
        match &ctx.lease {
            Some(lease) if timed_out => lease.unanswered(),
            // A kept connection may have been closed by a healthy VM at the moment of its use.
            Some(lease) if !reused => lease.broke(),
            _ => {}
        }
        // A kept connection that has just been closed says nothing of whoever closed it.
        if timed_out || !reused {
            ctx.settle(false, || self.since_made());
        }
        let replayable =
            session.req_header().method.is_idempotent() && !session.as_ref().retry_buffer_truncated();
        let safe = replayable && !timed_out && status_sent(session).is_none();
        error.set_retry(safe && ctx.tries <= RETRIES_MAX);
        error
    }

    async fn fail_to_proxy(&self, session: &mut Session, error: &Error, ctx: &mut Context) -> FailToProxy {
        let gone = FailToProxy { error_code: 0, can_reuse_downstream: false };
        let too_slow = self.too_slow(session, error, ctx);
        if too_slow.is_some() {
            // The answer may take its time, too.
            ctx.lease = None;
            if status_sent(session).is_some() {
                return gone;
            }
        }
        if too_slow.is_none() && *error.esource() == ErrorSource::Downstream && !is_malformed(error) {
            ctx.end = End::ClientGone;
            return gone;
        }
        if status_sent(session).is_some() {
            ctx.end = End::Truncated;
            self.metrics.truncated.inc();
            return gone;
        }
        if let Some(sent) = self.send_intercepted(session, ctx).await {
            return sent;
        }
        let refusal = *ctx.refusal.get_or_insert_with(|| refusal_for(error));
        if refusal == Refusal::Internal {
            tracing::error!(%error, "request failed");
        } else {
            tracing::debug!(%error, vm = ctx.vm, "request failed");
        }
        session.set_keepalive(None);
        if let Err(error) = self.refuse(session, ctx, refusal, None).await {
            tracing::debug!(%error, "client gone before the answer");
            ctx.end = End::ClientGone;
        }
        FailToProxy { error_code: refusal.status().as_u16(), can_reuse_downstream: false }
    }

    async fn logging(&self, session: &mut Session, _: Option<&Error>, ctx: &mut Context) {
        // First of all: others may wait for the place.
        ctx.lease = None;
        ctx.place = None;
        ctx.permit = None;
        self.give_up_copy(ctx);
        self.acquit(ctx);
        self.record(session, ctx);
        downstream::hooks_end(session);
    }

    fn suppress_error_log(&self, _: &Session, _: &Context, _: &Error) -> bool {
        true
    }

    fn suppress_proxy_warn_log(&self, _: &Session, _: &Context, _: &Error, _: ProxyWarnLogContext) -> bool {
        true
    }
}

/// Whether the client is still there, and said what makes no sense.
fn is_malformed(error: &Error) -> bool {
    matches!(error.etype(), ErrorType::InvalidHTTPHeader | ErrorType::Custom("InvalidChunk"))
}

pub(crate) fn has_tls(session: &Session) -> bool {
    session.as_downstream().digest().is_some_and(|digest| digest.ssl_digest.is_some())
}

fn refusal_for(error: &Error) -> Refusal {
    match (error.esource(), error.etype()) {
        (_, ErrorType::InternalError) => Refusal::Internal,
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
