//! A request's leave to be sent to a VM, and what it has to say of that VM's end.
//!
//! Requests are told apart by what they ask, not by who asks: method, host, target and header fields, without those that
//! are another's or the way's doing ([`VOLATILE`]). All other fields count, since any may be what kills a VM: if they did
//! not, who finds a deadly field could have requests refused that others send without it.

use std::hash::{BuildHasher, Hasher, RandomState};

use http::HeaderName;
use pingora::http::RequestHeader;
use pingora::proxy::Session;
use weir_pool::{Fingerprint, Lease};

use crate::answer::Refusal;
use crate::context::{Context, End, Route};
use crate::proxy::{NoLease, Proxy};
use crate::request::authority_and_target;
use crate::resilience::Backing;

/// Fields that differ from request to request of the same client, or tell where it came from: names in lower case.
const VOLATILE: &[&str] = &[
    "baggage",
    "connection",
    "date",
    "forwarded",
    "keep-alive",
    "traceparent",
    "tracestate",
    "via",
    "x-correlation-id",
    "x-forwarded-for",
    "x-real-ip",
    "x-request-id",
];

impl Proxy {
    /// Waits for a lease, for a request that is not in quarantine. It may get there while it waits.
    pub(crate) async fn admitted_lease(
        &self,
        session: &mut Session,
        route: &Route,
        ctx: &mut Context,
    ) -> Result<Lease, NoLease> {
        let backing = route.to.get(ctx.backing).ok_or_else(no_backing)?;
        if let Some(breaker) = &backing.breaker {
            // The try before this one is over.
            ctx.permit = None;
            ctx.permit = Some(breaker.admit(self.since_made()).map_err(NoLease::Refused)?);
        }
        self.admit(session, backing, ctx)?;
        let lease = self.lease(session, route, backing, ctx).await?;
        self.admit(session, backing, ctx)?;
        Ok(lease)
    }

    fn admit(&self, session: &Session, backing: &Backing, ctx: &mut Context) -> Result<(), NoLease> {
        let admitted = backing.pool.admit(|| self.fingerprint(session.req_header()));
        ctx.pass = Some(admitted.map_err(|error| NoLease::Refused(Refusal::from(&error)))?);
        Ok(())
    }

    /// The connection to its VM broke while the request was there.
    pub(crate) fn lost(&self, session: &Session, ctx: &Context) {
        if let (Some(lease), Some(pass)) = (&ctx.lease, &ctx.pass) {
            lease.lost(self.fingerprint(session.req_header()), pass);
        }
    }

    /// The request has ended; as far as it is concerned its VM lives.
    pub(crate) fn acquit(&self, ctx: &Context) {
        let answered = ctx.end == End::Whole && ctx.refusal.is_none();
        if let (true, Some(backing), Some(pass)) = (answered, ctx.backing(), &ctx.pass) {
            backing.pool.acquit(pass);
        }
    }

    fn fingerprint(&self, request: &RequestHeader) -> Fingerprint {
        fingerprint(&self.keys, request)
    }
}

/// What a request goes to was chosen on its own route.
fn no_backing() -> NoLease {
    NoLease::Refused(Refusal::Internal)
}

fn fingerprint(keys: &RandomState, request: &RequestHeader) -> Fingerprint {
    let (authority, target) = authority_and_target(request);
    let asked = hash(keys, &[request.method.as_str().as_bytes(), authority.unwrap_or_default(), target]);
    let counts = |name: &HeaderName| VOLATILE.binary_search(&name.as_str()).is_err();
    let fields = request.headers.iter().filter(|(name, _)| counts(name));
    // In any order, which is why they are added up.
    let field_hashes = fields.map(|(name, value)| hash(keys, &[name.as_str().as_bytes(), value.as_bytes()]));
    Fingerprint(field_hashes.fold(asked, u64::wrapping_add))
}

fn hash(keys: &RandomState, parts: &[&[u8]]) -> u64 {
    let mut hasher = keys.build_hasher();
    for part in parts {
        hasher.write_usize(part.len());
        hasher.write(part);
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: &str, target: &str, fields: &[(&str, &str)]) -> RequestHeader {
        let mut request = RequestHeader::build(method, target.as_bytes(), None).unwrap();
        for (name, value) in fields {
            request.append_header((*name).to_owned(), *value).unwrap();
        }
        request
    }

    #[test]
    fn what_is_asked_counts_and_who_asks_does_not() {
        let keys = RandomState::new();
        let of = |method, target, fields: &[_]| fingerprint(&keys, &request(method, target, fields));
        let (host, evil) = (("host", "a"), ("x-evil", "1"));
        let base = of("GET", "/a?b", &[host, evil]);
        for same in [
            of("GET", "/a?b", &[evil, host]),
            of("GET", "/a?b", &[host, evil, ("x-forwarded-for", "192.0.2.1"), ("traceparent", "00-1")]),
            of("GET", "/a?b", &[host, evil, ("Connection", "close"), ("X-Request-Id", "7")]),
        ] {
            assert_eq!(same, base);
        }
        for other in [
            of("HEAD", "/a?b", &[host, evil]),
            of("GET", "/a?c", &[host, evil]),
            of("GET", "/a", &[host, evil]),
            of("GET", "/a?b", &[("host", "b"), evil]),
            of("GET", "/a?b", &[host]),
            of("GET", "/a?b", &[host, ("x-evil", "2")]),
            of("GET", "/a?b", &[host, evil, evil]),
        ] {
            assert_ne!(other, base);
        }
        assert_ne!(fingerprint(&RandomState::new(), &request("GET", "/a?b", &[host, evil])), base, "keyed");
    }

    #[test]
    fn volatile_fields_are_in_order() {
        assert!(VOLATILE.is_sorted());
    }
}
