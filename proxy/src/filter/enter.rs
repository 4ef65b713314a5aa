//! A request's first steps on its route.

use std::sync::Arc;

use pingora::proxy::Session;

use super::Filters;
use crate::context::{Context, Found};
use crate::proxy::Proxy;

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
        let admitted = found.filters().map_or(Ok(()), |filters| filters.admit(session.req_header()));
        match &found {
            Found::Pool(route) => ctx.route = Some(Arc::clone(route)),
            Found::Answer(route) => ctx.answering = Some(Arc::clone(route)),
        }
        if let Err(refused) = admitted {
            ctx.refusal = Some(refused.refusal);
            self.metrics.filter_refusal(found.name(), refused.refusal.word());
            self.close_if_draining(session);
            refused.refusal.send_with(session, refused.field).await?;
            return Ok(true);
        }
        match found {
            Found::Pool(route) => {
                route.retries.request(self.since_made());
                Ok(false)
            }
            Found::Answer(route) => {
                self.close_if_draining(session);
                match route.answer.send(session).await? {
                    Ok(()) => {}
                    Err(refusal) => {
                        ctx.refusal = Some(refusal);
                        refusal.send(session).await?;
                    }
                }
                Ok(true)
            }
        }
    }
}
