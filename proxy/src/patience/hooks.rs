//! What the hooks ask.

use std::time::Duration;

use http::Version;
use pingora::proxy::Session;
use pingora::{Error, ErrorType};
use tokio::time::Instant;
use weir_config::model::{Patience, Protocol};

use super::{Meter, Watch};
use crate::answer::Refusal;
use crate::context::{Context, End};
use crate::proxy::{NoLease, Proxy};
use crate::upstream::{Pace, Silence};
use crate::{downstream, grpc};

impl Context {
    /// When the request's time is over, if its route limits that.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let timeout = self.route.as_ref()?.config.filter.patience.timeout?;
        Some(Instant::from_std(self.began + timeout))
    }

    /// Why the request is late, if it is.
    pub(crate) fn late(&self) -> Option<Refusal> {
        self.watch.as_ref().and_then(Watch::late)
    }

    /// How long its VM may be silent.
    pub(crate) fn silence(&self) -> Silence {
        let left = |deadline: Instant| deadline.saturating_duration_since(Instant::now());
        let route = self.route.as_ref().map(|route| route.config.filter.patience.tunnel_idle_timeout);
        let during_body = route.unwrap_or_else(|| Patience::default().tunnel_idle_timeout);
        Silence { during_body, at_most: self.deadline().map(left) }
    }
}

impl Proxy {
    /// A wait for a lease, as long as there is time for it.
    pub(crate) async fn in_time<T>(
        deadline: Option<Instant>,
        leasing: impl Future<Output = Result<T, NoLease>>,
    ) -> Result<T, NoLease> {
        match deadline {
            None => leasing.await,
            Some(deadline) => tokio::time::timeout_at(deadline, leasing)
                .await
                .unwrap_or(Err(NoLease::Refused(Refusal::Timeout))),
        }
    }

    /// Looks to it that the request, which is about to be sent to its VM on the connection `fd`, is not waited for too
    /// long. `pace`: of the bridge that it goes over.
    pub(crate) fn watch(&self, session: &mut Session, ctx: &mut Context, fd: i32, pace: Option<&Pace>) {
        ctx.watch = None;
        let (Some(route), Some(backing), Some(vm)) = (&ctx.route, ctx.backing(), ctx.vm) else { return };
        let patience = &route.config.filter.patience;
        let deadline = ctx.deadline();
        let is_http2 = session.req_header().version == Version::HTTP_2;
        let has_body = !session.as_downstream_mut().is_body_done();
        if has_body && !is_http2 {
            downstream::wait_for_body(session, patience);
        }
        let body = has_body && is_http2 && !grpc::is_call(session.req_header());
        if (!body && deadline.is_none()) || backing.pool.config().protocol == Protocol::H2c {
            return;
        }
        if let Some(cut) = self.upstreams.cut(vm, fd) {
            let body = body.then(|| Meter::new(patience));
            ctx.watch = Some(Watch::begin(body, pace.cloned(), deadline, cut));
        }
    }

    /// A piece of the request's body has come.
    pub(crate) fn body_came(&self, session: &Session, ctx: &Context, bytes: usize, is_last: bool) {
        if let Some(watch) = &ctx.watch {
            watch.received(bytes, is_last);
        }
        if is_last && session.req_header().version != Version::HTTP_2 {
            downstream::body_is_whole(session);
        }
    }

    /// Limits the next write to the client to what is left of the request's time.
    pub(crate) fn limit_write(&self, session: &mut Session, ctx: &mut Context) -> pingora::Result<()> {
        let Some(deadline) = ctx.deadline().filter(|_| !session.was_upgraded()) else { return Ok(()) };
        let left = deadline.saturating_duration_since(Instant::now());
        if left == Duration::ZERO {
            ctx.refusal = Some(Refusal::Timeout);
            return Error::e_explain(ErrorType::Custom("timeout"), Refusal::Timeout.word());
        }
        let route = ctx.route.as_ref().map(|route| route.config.filter.patience.write_timeout);
        session.as_downstream_mut().set_write_timeout(Some(route.unwrap_or(left).min(left)));
        Ok(())
    }

    /// Why a request that has failed with `error` was too slow, if that is why; counted.
    pub(crate) fn too_slow(&self, session: &Session, error: &Error, ctx: &mut Context) -> Option<Refusal> {
        let is_late = |deadline: Instant| deadline <= Instant::now();
        let refusal = if let Some(late) = ctx.late() {
            late
        } else if ctx.refusal == Some(Refusal::Timeout) {
            Refusal::Timeout
        } else if downstream::is_body_late(session) {
            Refusal::BodyTimeout
        } else if matches!(error.etype(), ErrorType::WriteTimedout | ErrorType::ReadTimedout)
            && !session.was_upgraded()
            && ctx.deadline().is_some_and(is_late)
        {
            Refusal::Timeout
        } else if *error.esource() == pingora::ErrorSource::Downstream
            && *error.etype() == ErrorType::WriteTimedout
        {
            Refusal::WriteTimeout
        } else {
            return None;
        };
        ctx.refusal = Some(refusal);
        ctx.end = End::TooSlow;
        let route = ctx.route.as_ref().map_or("", |route| route.config.name.as_str());
        self.metrics.too_slow(route, refusal.word());
        Some(refusal)
    }
}
