//! How a request is refused: with the page that its route has for that, or a line of text.

use http::StatusCode;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::proxy::{FailToProxy, Session};
use pingora::{Error, ErrorType};

use super::Instead;
use crate::answer::{Field, Refusal, send};
use crate::context::{Context, End};
use crate::grpc;
use crate::proxy::Proxy;

/// What ends a try whose answer the client does not get.
const INTERCEPTED: ErrorType = ErrorType::Custom("intercepted");

impl Proxy {
    /// Answers a request in its pool's stead.
    pub(crate) async fn refuse(
        &self,
        session: &mut Session,
        ctx: &mut Context,
        refusal: Refusal,
        field: Option<Field>,
    ) -> pingora::Result<()> {
        ctx.refusal = Some(refusal);
        self.close_if_draining(session);
        let page = match ctx.instead() {
            Some(instead) => instead.page(refusal).cloned(),
            None if ctx.has_route() => None,
            None => self.table.load().pages.get(refusal.status()).cloned(),
        };
        refusal.send_with(session, field, page).await
    }

    /// Answers with the maintenance page, if the route is in maintenance. Whether it did.
    pub(crate) async fn refuse_in_maintenance(
        &self,
        session: &mut Session,
        ctx: &mut Context,
    ) -> pingora::Result<bool> {
        let closed = ctx.instead().and_then(|instead| instead.closed_for(ctx.client));
        let Some(refusal) = closed else { return Ok(false) };
        self.refuse(session, ctx, refusal, None).await?;
        Ok(true)
    }

    /// Gives up a VM's answer to `request` if the client is to get a page in its place, which a gRPC call has no use for. The
    /// connection to the VM goes with it: what is left of the answer is nobody's.
    pub(crate) fn intercept(
        &self,
        request: &RequestHeader,
        answer: &ResponseHeader,
        ctx: &mut Context,
    ) -> pingora::Result<()> {
        if answer.status < StatusCode::BAD_REQUEST || grpc::is_call(request) {
            return Ok(());
        }
        let Some(instead) = ctx.instead() else { return Ok(()) };
        ctx.intercepted = instead.intercept(answer)?;
        match ctx.intercepted {
            Some(_) => Err(Error::explain(INTERCEPTED, "a page goes out instead").into_up()),
            None => Ok(()),
        }
    }

    /// Sends what takes the place of a VM's answer, if there is something.
    pub(crate) async fn send_intercepted(
        &self,
        session: &mut Session,
        ctx: &mut Context,
    ) -> Option<FailToProxy> {
        let mut answer = ctx.intercepted.take()?;
        // As after every try that ended like this, pingora does not go on with the connection.
        session.set_keepalive(None);
        let filters = ctx.route.as_ref().and_then(|route| route.filters.as_ref());
        let edited = filters.map_or(Ok(()), |filters| {
            filters.edit_response(&session.req_header().headers, &mut answer.header)
        });
        let status = answer.header.status.as_u16();
        let sent = match edited {
            Ok(()) => send(session, answer.header, answer.body).await,
            Err(error) => Err(error),
        };
        if let Err(error) = &sent {
            tracing::debug!(%error, "client gone before the answer");
            ctx.end = End::ClientGone;
        }
        Some(FailToProxy { error_code: status, can_reuse_downstream: false })
    }
}

impl Context {
    /// What the route answers instead of what it is asked for.
    fn instead(&self) -> Option<&Instead> {
        let of_pool = self.route.as_ref().and_then(|route| route.instead.as_deref());
        of_pool.or_else(|| self.answering.as_ref()?.instead.as_deref())
    }

    fn has_route(&self) -> bool {
        self.route.is_some() || self.answering.is_some()
    }
}

/// Whether a try ended only because its answer was given up.
pub(crate) fn is_interception(error: &Error) -> bool {
    *error.etype() == INTERCEPTED
}
