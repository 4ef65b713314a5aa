//! A client connection's stays in pools that isolate connections.
//!
//! ```text
//!  accepted --request for a pool--> tenancy in that pool --connection dropped--> tenancies end
//! ```
//!
//! All requests of the connection have to find them, HTTP/2's streams in tasks of their own included. What pingora hands
//! from a client's stream to each of its sessions, whatever the protocol, is the stream's digests; so that is how they
//! come, and with them what else is the connection's: who its client has proved to be, and that all its requests are sent
//! elsewhere. The connection itself ends them, and not the last session to hold a digest: pingora may keep one a little longer.

use std::sync::Arc;

use http::HeaderValue;
use parking_lot::Mutex;
use pingora::http::ResponseHeader;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::proxy::Session;
use weir_config::model::Isolation;
use weir_pool::{Pool, Tenancy};

use crate::tls::Identity;

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Tenancies {
    /// `None` when the connection has ended.
    by_pool: Mutex<Option<ByPool>>,
    of: Origin,
}

/// What is known of a connection when it begins.
#[derive(Clone, Debug, Default)]
pub(crate) struct Origin {
    /// Of a client with a certificate.
    pub(crate) identity: Option<Identity>,
    /// The listener sends everybody to TLS.
    pub(crate) redirect_https: bool,
    /// What the listener's answers say of it.
    pub(crate) hsts: Option<HeaderValue>,
}

/// A connection meets few pools.
type ByPool = Vec<(Arc<Pool>, Arc<Tenancy>)>;

/// The connection's hold on its tenancies: dropped, it ends them.
#[derive(Debug)]
pub(crate) struct Stay {
    tenancies: Arc<Tenancies>,
    digest: Arc<ProxyDigest>,
}

impl Stay {
    /// What is known of it.
    pub(crate) fn of(&self) -> &Origin {
        &self.tenancies.of
    }

    /// Of a connection that has just been accepted.
    pub(crate) fn begin(of: Origin) -> pingora::Result<Self> {
        let tenancies = Arc::new(Tenancies { by_pool: Mutex::new(Some(Vec::new())), of });
        // It is meant for what a CONNECT proxy on the way has answered.
        let response = ResponseHeader::build(http::StatusCode::OK, Some(0))?;
        let digest = ProxyDigest::new(Box::new(response), Some(Box::new(Arc::clone(&tenancies))));
        Ok(Self { tenancies, digest: Arc::new(digest) })
    }

    /// For the connection's sessions.
    pub(crate) fn digest(&self) -> Arc<ProxyDigest> {
        Arc::clone(&self.digest)
    }
}

impl Drop for Stay {
    fn drop(&mut self) {
        let ended = self.tenancies.by_pool.lock().take();
        // Not under the lock: it resets VMs.
        drop(ended);
    }
}

impl Tenancies {
    /// The connection's stay in `pool`; `None` if the connection has ended.
    fn of(&self, pool: &Arc<Pool>) -> Option<Arc<Tenancy>> {
        let mut by_pool = self.by_pool.lock();
        let by_pool = by_pool.as_mut()?;
        if let Some((_, tenancy)) = by_pool.iter().find(|(known, _)| Arc::ptr_eq(known, pool)) {
            return Some(Arc::clone(tenancy));
        }
        let tenancy = Arc::new(pool.tenancy());
        by_pool.push((Arc::clone(pool), Arc::clone(&tenancy)));
        Some(tenancy)
    }
}

/// The stay in `pool` of the connection that `session` came on. `None`: the request is for itself, because the pool does
/// not isolate connections or because the connection has ended.
pub(crate) fn tenancy(session: &Session, pool: &Arc<Pool>) -> Option<Arc<Tenancy>> {
    if pool.isolation() != Isolation::Connection {
        return None;
    }
    tenancies(session)?.of(pool)
}

/// Who the client of the connection that `session` came on has proved to be.
pub(crate) fn identity(session: &Session) -> Option<&Identity> {
    tenancies(session)?.of.identity.as_ref()
}

/// Whether the listener of the connection that `session` came on sends everybody to TLS.
pub(crate) fn redirects_https(session: &Session) -> bool {
    tenancies(session).is_some_and(|tenancies| tenancies.of.redirect_https)
}

/// What the listener of the connection that `session` came on has its answers say, see [`crate::hsts`].
pub(crate) fn hsts(session: &Session) -> Option<&HeaderValue> {
    tenancies(session)?.of.hsts.as_ref()
}

fn tenancies(session: &Session) -> Option<&Arc<Tenancies>> {
    let digest = session.as_downstream().digest()?.proxy_digest.as_ref()?;
    digest.user_data.as_ref()?.downcast_ref()
}
