//! How a copy is sent.
//!
//! As a client of pingora's, on connections of its own to the VM that the copy has a lease of. There is no second try. A
//! VM that does badly with it has done badly, and is treated as it is after any other request.

use std::fmt;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use http::{StatusCode, header};
use pingora::connectors::http::Connector;
use pingora::http::RequestHeader;
use pingora::protocols::http::client::HttpSession;
use pingora::upstreams::peer::Peer;
use pingora::{Error, ErrorType};
use tokio::sync::OwnedSemaphorePermit;
use weir_pool::{Caller, Fingerprint, Lease, Pass};

use super::{Mirror, Outcome};
use crate::upstream::{Silence, Traffic, Upstreams};

/// Bytes of an answer that are read and thrown away so that its connection can be used again.
const ANSWER_MAX: usize = 1 << 20;
/// Answers of status 1xx before the answer proper.
const INTERIM_MAX: usize = 8;

/// A copy, whole.
#[derive(Debug)]
pub(crate) struct Order {
    pub(super) request: RequestHeader,
    /// `None`: the request has none, which is not the same as an empty one.
    pub(super) body: Option<Vec<u8>>,
    pub(super) fingerprint: Fingerprint,
    pub(super) caller: Caller,
    /// Given back with it.
    pub(super) slot: OwnedSemaphorePermit,
}

/// Sends copies, and keeps connections for it. Made with the first copy: most weirs never send one.
#[derive(Default)]
pub(crate) struct Sender(OnceLock<Arc<Connector>>);

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sender")
    }
}

/// Why a copy was not answered.
#[derive(Debug)]
enum Failed {
    NoVm,
    /// The mirror's VM, or its connection.
    Exchange(Box<Error>),
}

impl Sender {
    /// Sends a copy, without anybody waiting for it.
    pub(super) fn send(&self, mirror: Arc<Mirror>, order: Order, upstreams: &Arc<Upstreams>) {
        let connector = Arc::clone(self.0.get_or_init(|| Arc::new(Connector::new(None))));
        let upstreams = Arc::clone(upstreams);
        tokio::spawn(async move {
            let sent = deliver(&connector, &upstreams, &mirror, order);
            let outcome = match tokio::time::timeout(mirror.config.timeout, sent).await {
                Ok(Ok(())) => Outcome::Answered,
                Ok(Err(Failed::NoVm)) => Outcome::NoVm,
                Ok(Err(Failed::Exchange(error))) => {
                    tracing::debug!(route = mirror.series.route, %error, "copy of a request failed");
                    Outcome::Failed
                }
                Err(_) => Outcome::TimedOut,
            };
            mirror.count(outcome);
        });
    }
}

async fn deliver(
    connector: &Connector,
    upstreams: &Arc<Upstreams>,
    mirror: &Mirror,
    order: Order,
) -> Result<(), Failed> {
    let Order { mut request, body, fingerprint, caller, slot } = order;
    let pass = mirror.pool.admit(|| fingerprint).map_err(|_| Failed::NoVm)?;
    let lease = lease(mirror, &caller).await?;
    if let Some(body) = &body {
        let length = request.insert_header(header::CONTENT_LENGTH, body.len());
        length.map_err(Failed::Exchange)?;
    }
    if !request.headers.contains_key(header::HOST) {
        let host = request.insert_header(header::HOST, lease.address().to_string());
        host.map_err(Failed::Exchange)?;
    }
    lease.asked();
    // A mirror speaks HTTP/1, and the whole has a time limit.
    let silence = Silence { during_body: mirror.config.timeout, at_most: None };
    let peer = upstreams.peer(&lease, &mirror.pool, Traffic::Exchange, silence);
    let connected = connector.get_http_session(&*peer).await;
    let (mut session, reused) = connected.map_err(|error| refused(&lease, error))?;
    session.set_read_timeout(peer.options.read_timeout);
    session.set_write_timeout(peer.options.write_timeout);
    match exchange(&mut session, request, body, &lease).await {
        Ok(true) => connector.release_http_session(session, &*peer, peer.idle_timeout()).await,
        Ok(false) => session.shutdown().await,
        Err(error) => return Err(broke(&lease, error, reused, fingerprint, &pass)),
    }
    mirror.pool.acquit(&pass);
    drop(slot);
    Ok(())
}

async fn lease(mirror: &Mirror, caller: &Caller) -> Result<Lease, Failed> {
    if mirror.config.wake {
        return mirror.pool.lease_for(caller).await.map_err(|_| Failed::NoVm);
    }
    mirror.pool.lease_now().ok_or(Failed::NoVm)
}

/// Sends a request and reads its answer. Whether that was read to its end.
async fn exchange(
    session: &mut HttpSession,
    request: RequestHeader,
    body: Option<Vec<u8>>,
    lease: &Lease,
) -> pingora::Result<bool> {
    session.write_request_header(Box::new(request)).await?;
    if let Some(body) = body.filter(|body| !body.is_empty()) {
        session.write_request_body(Bytes::from(body), true).await?;
    }
    session.finish_request_body().await?;
    for _ in 0..=INTERIM_MAX {
        session.read_response_header().await?;
        let status = session.response_header().map(|response| response.status);
        if status.is_none_or(|status| !status.is_informational()) {
            lease.answered();
            return discard(session).await;
        }
        if status == Some(StatusCode::SWITCHING_PROTOCOLS) {
            break;
        }
    }
    Error::e_explain(ErrorType::InvalidHTTPHeader, "no answer but interim ones")
}

async fn discard(session: &mut HttpSession) -> pingora::Result<bool> {
    let mut read = 0;
    while let Some(part) = session.read_response_body().await? {
        read += part.len();
        if read > ANSWER_MAX {
            return Ok(false);
        }
    }
    Ok(true)
}

/// No connection could be made.
fn refused(lease: &Lease, error: Box<Error>) -> Failed {
    let vms_fault = matches!(
        error.etype(),
        ErrorType::ConnectRefused | ErrorType::ConnectTimedout | ErrorType::ConnectNoRoute
    );
    if vms_fault {
        lease.suspect();
    }
    Failed::Exchange(error)
}

/// The connection broke, or nothing came in time.
fn broke(lease: &Lease, error: Box<Error>, reused: bool, fingerprint: Fingerprint, pass: &Pass) -> Failed {
    if *error.etype() == ErrorType::ReadTimedout {
        lease.unanswered();
        return Failed::Exchange(error);
    }
    lease.lost(fingerprint, pass);
    // A kept connection may have been closed by a healthy VM at the moment of its use.
    if !reused {
        lease.broke();
    }
    Failed::Exchange(error)
}
