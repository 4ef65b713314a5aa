//! Another pool, for requests that the route's own did not take.
//!
//! Once per request, and only if no VM has seen anything of it: a VM may have done already what it was asked for, and one that a
//! request kills is no reason to have it kill another pool's.

use pingora::proxy::Session;
use weir_pool::Lease;

use crate::answer::Refusal;
use crate::context::{Context, Route};
use crate::proxy::{NoLease, Proxy};

impl Proxy {
    /// A lease in the request's pool, or else in the fallback.
    pub(crate) async fn lease_or_fall_back(
        &self,
        session: &mut Session,
        route: &Route,
        ctx: &mut Context,
    ) -> Result<Lease, NoLease> {
        match self.admitted_lease(session, route, ctx).await {
            Err(NoLease::Refused(refusal)) if self.fall_back(route, ctx, refusal) => {
                self.admitted_lease(session, route, ctx).await
            }
            leased => leased,
        }
    }

    /// Sends a request that its pool refused to the fallback, if that is what this is for. Whether it is.
    pub(crate) fn fall_back(&self, route: &Route, ctx: &mut Context, refusal: Refusal) -> bool {
        if ctx.sent || !is_of_the_pool(refusal) {
            return false;
        }
        let Some(fallback) = route.to.fallback_from(ctx.backing) else { return false };
        ctx.backing = fallback;
        ctx.permit = None;
        if let Some(backing) = ctx.backing() {
            backing.retries.request(self.since_made());
        }
        true
    }
}

/// Whether another pool may well do what this one did not.
fn is_of_the_pool(refusal: Refusal) -> bool {
    matches!(
        refusal,
        Refusal::QueueFull(_)
            | Refusal::NoRoom(_)
            | Refusal::QueueTimeout(_)
            | Refusal::StartFailed(_)
            | Refusal::CircuitOpen(_)
            | Refusal::PoolFull
            | Refusal::VmFailed
    )
}
