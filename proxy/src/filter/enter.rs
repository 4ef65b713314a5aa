//! A request's first steps on its route.

use std::sync::Arc;

use bytes::Bytes;
use pingora::proxy::Session;
use pingora::{Error, ErrorType};

use super::Filters;
use crate::answer::{Refusal, send};
use crate::context::{Context, Found};
use crate::proxy::Proxy;
use crate::resilience::Affinity;
use crate::service::has_tls;

impl Found {
    fn filters(&self) -> Option<&Filters> {
        match self {
            Self::Pool(route) => route.filters.as_deref(),
            Self::Answer(route) => route.filters.as_deref(),
        }
    }
}

impl Proxy {
    /// Holds the request against its route's filters. Whether it has been answered.
    pub(crate) async fn enter(
        &self,
        session: &mut Session,
        ctx: &mut Context,
        found: Found,
    ) -> pingora::Result<bool> {
        match &found {
            Found::Pool(route) => {
                let headers = &session.req_header().headers;
                let belongs =
                    |affinity: &Affinity| affinity.of(headers, ctx.client, &self.keys, rand::random);
                ctx.belongs = route.affinity.as_ref().and_then(belongs);
                let number = || ctx.belongs.map_or_else(rand::random, |belongs| belongs.number(&self.keys));
                ctx.backing = route.to.choose(number);
                ctx.route = Some(Arc::clone(route));
            }
            Found::Answer(route) => ctx.answering = Some(Arc::clone(route)),
        }
        let preflight = |filters: &Filters| filters.preflight(session.req_header(), ctx.client);
        if let Some(answer) = found.filters().map(preflight).transpose()?.flatten() {
            self.close_if_draining(session);
            send(session, answer, Bytes::new()).await?;
            return Ok(true);
        }
        let admit = |filters: &Filters| filters.admit(session.req_header(), ctx.client, has_tls(session));
        match found.filters().map_or(Ok(None), admit) {
            Ok(place) => ctx.place = place,
            Err(refused) => {
                self.metrics.filter_refusal(found.name(), refused.refusal.word());
                self.refuse(session, ctx, refused.refusal, refused.field).await?;
                return Ok(true);
            }
        }
        if self.refuse_in_maintenance(session, ctx).await? {
            return Ok(true);
        }
        match found {
            Found::Pool(_) => {
                if let Some(backing) = ctx.backing() {
                    backing.retries.request(self.since_made());
                }
                Ok(false)
            }
            Found::Answer(route) => {
                self.close_if_draining(session);
                match route.answer.send(session, route.filters.as_deref()).await? {
                    Ok(()) => {}
                    Err(refusal) => self.refuse(session, ctx, refusal, None).await?,
                }
                Ok(true)
            }
        }
    }

    /// Sends a request of plain text to TLS.
    pub(crate) async fn redirect_https(
        &self,
        session: &mut Session,
        ctx: &mut Context,
    ) -> pingora::Result<()> {
        self.close_if_draining(session);
        if let Err(refusal) = self.to_https.send(session, None).await? {
            self.refuse(session, ctx, refusal, None).await?;
        }
        Ok(())
    }

    /// Holds what has come of a request's body against its route's filters. A tunnel has no body.
    pub(crate) fn admit_body(&self, session: &Session, ctx: &mut Context) -> pingora::Result<()> {
        let Some(route) = &ctx.route else { return Ok(()) };
        let Some(filters) = &route.filters else { return Ok(()) };
        if session.was_upgraded() || filters.takes_body(session.as_downstream().body_bytes_read() as u64) {
            return Ok(());
        }
        let refusal = Refusal::BodyTooLarge;
        ctx.refusal = Some(refusal);
        self.metrics.filter_refusal(&route.config.name, refusal.word());
        Error::e_explain(ErrorType::Custom("filter"), refusal.word())
    }
}
