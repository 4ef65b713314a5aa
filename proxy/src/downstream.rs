//! A client's connection, and what pingora refuses on it.
//!
//! A request whose header pingora cannot make sense of (malformed, contradictory `Host` or `Content-Length`) it answers
//! by itself, and calls no hook before or after. So pingora does not get the client's stream itself but a
//! [`Connection`] around it, which is told when a request is in the hooks' hands:
//!
//! ```text
//!            early_request_filter
//!   between ----------------------> within
//!      |    <---------------------- (passes everything)
//!      |           logging
//!      | a response with status 400 begins: nobody but pingora can have made it
//!      v
//!   refusing: the response gets its `weir-error`, the request its count and its line
//! ```
//!
//! pingora closes the connection after such an answer. HTTP/2 has hooks for each of its streams instead, and nothing
//! that is written between them is looked at.
//!
//! It is also where a header that takes too long ends its connection, see [`deadline`], where a client's body is held back, see [`hold_by`], and whose end is the end of its stays in pools that
//! isolate connections, see [`crate::tenancies`].

mod connection;
mod deadline;
mod http;
pub(crate) mod proxy_protocol;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ::http::HeaderValue;
use arc_swap::ArcSwap;
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use pingora::apps::ServerApp;
use pingora::protocols::l4::stream::Stream as Socket;
use pingora::protocols::{ALPN, GetSocketDigest, Stream};
use pingora::proxy::{HttpProxy, Session};
use pingora::server::ShutdownWatch;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use weir_config::model::{Patience, ProxyProtocol};

use self::connection::{Connection, Phase};
use self::deadline::HeaderDeadline;
use self::http::Http;
use self::proxy_protocol::ProxyProtocolError;
use crate::filter::{PerClient, Place};
use crate::hsts;
use crate::patience::BodyDeadline;
use crate::proxy::Proxy;
use crate::record::Unrouted;
use crate::table::Table;
use crate::tenancies::{Origin, Stay};
use crate::tls::{Identity, Tls, TlsError};
use crate::upstream::Pace;

/// pingora's HTTP on the [`Connection`]s of one listener.
pub(crate) struct Downstream {
    http: Arc<Http>,
    unrouted: Arc<Unrouted>,
    /// Says whether some pool isolates connections.
    table: Arc<ArcSwap<Table>>,
    entrance: Entrance,
}

/// What a listener asks of its clients.
pub(crate) struct Entrance {
    tls: Option<Arc<Tls>>,
    /// HTTP/2 is spoken in plain text.
    http2_by_knowledge: bool,
    header_timeout: Duration,
    idle_timeout: Duration,
    redirect_https: bool,
    hsts: Option<HeaderValue>,
    /// Who says whose connections they pass on.
    proxy_protocol: ProxyProtocol,
    /// `None`: a client may have as many connections as there are places.
    per_client: Option<PerClient>,
    /// One for each connection there may be.
    places: Arc<Semaphore>,
}

impl Entrance {
    /// Reads what `config` names.
    ///
    /// # Errors
    /// If a certificate cannot be used.
    pub(crate) fn new(config: &weir_config::model::Listener) -> Result<Self, TlsError> {
        let tls = config.tls.as_ref().map(|tls| Tls::load(tls, config.http2)).transpose()?.map(Arc::new);
        Ok(Self {
            http2_by_knowledge: tls.is_none() && config.http2,
            tls,
            header_timeout: config.header_timeout,
            idle_timeout: config.idle_timeout,
            redirect_https: config.redirect_https,
            hsts: config.tls.as_ref().and_then(|tls| tls.hsts.as_ref()).map(hsts::value),
            proxy_protocol: config.proxy_protocol.clone(),
            per_client: config.max_connections_per_client.map(PerClient::new),
            places: Arc::new(Semaphore::new(config.max_connections as usize)),
        })
    }

    /// `None`: plain text.
    pub(crate) fn tls(&self) -> Option<&Arc<Tls>> {
        self.tls.as_ref()
    }

    /// From an accepted connection to one that speaks HTTP, with its place among its client's.
    async fn enter(&self, stream: Stream) -> Result<(Stream, Option<Place>), EnterError> {
        if self.proxy_protocol == ProxyProtocol::Nobody && self.tls.is_none() {
            let place = self.place(&*stream)?;
            return Ok((stream, place));
        }
        let entering = async {
            let mut socket = stream.into_any().downcast::<Socket>().map_err(|_| EnterError::NoSocket)?;
            proxy_protocol::read(&mut socket, &self.proxy_protocol).await?;
            // Before the handshake, which is what costs most.
            let place = self.place(&*socket)?;
            match &self.tls {
                Some(tls) => Ok((tls.accept(*socket).await.map_err(EnterError::Tls)?, place)),
                None => Ok((socket as Stream, place)),
            }
        };
        // Not a part of the connection's own state, which lives for longer and is far smaller.
        match tokio::time::timeout(self.header_timeout, Box::pin(entering)).await {
            Ok(entered) => entered,
            Err(_) => Err(EnterError::TooSlow),
        }
    }
}

impl Entrance {
    /// The connection's place among those of its client, if those are counted. Who has no address is not limited.
    fn place(&self, socket: &(impl GetSocketDigest + ?Sized)) -> Result<Option<Place>, EnterError> {
        let Some(places) = &self.per_client else { return Ok(None) };
        let digest = socket.get_socket_digest();
        let client = digest.as_ref().and_then(|digest| digest.peer_addr()?.as_inet()).map(SocketAddr::ip);
        let Some(client) = client else { return Ok(None) };
        places.enter(client.into()).map(Some).ok_or(EnterError::TooMany)
    }
}

/// Why a connection came to nothing before its first request.
#[derive(Debug, thiserror::Error)]
enum EnterError {
    #[error("proxy protocol")]
    ProxyProtocol(#[from] ProxyProtocolError),
    #[error("tls handshake")]
    Tls(#[source] Box<pingora::Error>),
    #[error("the client took too long")]
    TooSlow,
    #[error("the client has too many")]
    TooMany,
    #[error("the connection is no socket")]
    NoSocket,
}

impl Downstream {
    pub(crate) fn new(
        proxy: Arc<HttpProxy<Proxy>>,
        unrouted: Arc<Unrouted>,
        table: Arc<ArcSwap<Table>>,
        entrance: Entrance,
    ) -> Self {
        let http = Arc::new(Http::new(proxy, entrance.idle_timeout));
        Self { http, unrouted, table, entrance }
    }

    fn connection(
        &self,
        stream: Stream,
        places: (OwnedSemaphorePermit, Option<Place>),
        closing: ShutdownWatch,
    ) -> Connection {
        let redirect_https = self.entrance.redirect_https;
        let identity = Identity::of(&stream);
        let hsts = self.entrance.hsts.clone();
        let needed = redirect_https || identity.is_some() || hsts.is_some();
        let needed = needed || self.table.load().isolates_connections;
        let stay = needed
            .then(|| Stay::begin(Origin { identity, redirect_https, hsts }))
            .transpose()
            .unwrap_or_else(|error| {
                // Each request is for itself then, and of a client without a name.
                tracing::error!(%error, "connection without a stay");
                None
            });
        Connection {
            phase: Phase::new(matches!(stream.selected_alpn_proto(), Some(ALPN::H2))),
            stream,
            http2_by_knowledge: self.entrance.http2_by_knowledge,
            ahead: BytesMut::new(),
            deadline: HeaderDeadline::new(self.entrance.header_timeout),
            refusal: Bytes::new(),
            unrouted: Arc::clone(&self.unrouted),
            pace: Mutex::new(None),
            body: Mutex::new(None),
            idle_timeout: self.entrance.idle_timeout,
            stay,
            closing,
            _places: places,
        }
    }
}

#[async_trait]
impl ServerApp for Downstream {
    async fn process_new(self: &Arc<Self>, stream: Stream, shutdown: &ShutdownWatch) -> Option<Stream> {
        let Ok(place) = Arc::clone(&self.entrance.places).try_acquire_owned() else {
            self.unrouted.turned_away.inc();
            return None;
        };
        let _open = self.unrouted.connections.enter();
        let (stream, place_of_client) = match self.entrance.enter(stream).await {
            Ok(entered) => entered,
            Err(error) => {
                if matches!(error, EnterError::TooMany) {
                    self.unrouted.turned_away.inc();
                }
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                tracing::debug!(%error, cause, "connection came to nothing");
                return None;
            }
        };
        self.http
            .process_new(
                Box::new(self.connection(stream, (place, place_of_client), shutdown.clone())),
                shutdown,
            )
            .await
    }
}

/// Whether the listener of the request's connection is there no more, so that the connection is to end.
pub(crate) fn is_closing(session: &Session) -> bool {
    connection(session).is_some_and(|connection| *connection.closing.borrow())
}

/// From now on the hooks see what becomes of this request.
pub(crate) fn hooks_begin(session: &Session) {
    set_within(session, true);
}

/// They have seen all of it.
pub(crate) fn hooks_end(session: &Session) {
    set_within(session, false);
    hold_by(session, None);
    body_is_whole(session);
}

/// From now on the request's body, over HTTP/1, is waited for.
pub(crate) fn wait_for_body(session: &Session, patience: &Patience) {
    if let Some(connection) = connection(session) {
        *connection.body.lock() = Some(BodyDeadline::new(patience));
    }
}

/// It is waited for no more.
pub(crate) fn body_is_whole(session: &Session) {
    if let Some(connection) = connection(session) {
        *connection.body.lock() = None;
    }
}

/// Whether it came too slowly.
pub(crate) fn is_body_late(session: &Session) -> bool {
    connection(session)
        .is_some_and(|connection| connection.body.lock().as_ref().is_some_and(BodyDeadline::is_late))
}

/// How long the request's connection may be without another one; `None`: that is not the connection's to say.
pub(crate) fn idle_timeout(session: &Session) -> Option<Duration> {
    connection(session).map(|connection| connection.idle_timeout)
}

/// From now on the request's body is read only while `pace` lets it: to wait in a hook instead would also hold up the
/// response, which is what has to go on.
pub(crate) fn hold_by(session: &Session, pace: Option<Pace>) {
    if let Some(connection) = connection(session) {
        *connection.pace.lock() = pace;
    }
}

fn set_within(session: &Session, within: bool) {
    if let Some(connection) = connection(session) {
        connection.phase.set_within(within);
    }
}

fn connection(session: &Session) -> Option<&Connection> {
    session.as_downstream().stream()?.as_any().downcast_ref()
}
