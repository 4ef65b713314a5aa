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
//! pingora closes the connection after such an answer.
//!
//! It is also where a client's body is held back, see [`hold_by`], and whose end is the end of its stays in pools that
//! isolate connections, see [`crate::tenancies`].

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use bytes::{Buf, Bytes};
use parking_lot::Mutex;
use pingora::apps::ServerApp;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::tls::{SslDigest, TlsRef};
use pingora::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, Stream,
    TimingDigest, UniqueID, UniqueIDType,
};
use pingora::proxy::{HttpProxy, Session};
use pingora::server::ShutdownWatch;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::answer::Refusal;
use crate::proxy::Proxy;
use crate::record::Unrouted;
use crate::table::Table;
use crate::tenancies::Stay;
use crate::upstream::Pace;

/// How pingora's own refusals begin, and nothing else that it writes between two requests.
const REFUSAL: &[u8] = b"HTTP/1.1 400 ";

/// pingora's HTTP on [`Connection`]s.
pub(crate) struct Downstream {
    proxy: Arc<HttpProxy<Proxy>>,
    unrouted: Arc<Unrouted>,
    /// Says whether some pool isolates connections.
    table: Arc<ArcSwap<Table>>,
}

/// See the module's documentation.
#[derive(Debug)]
struct Connection {
    stream: Stream,
    /// A request is in the hooks' hands.
    within: AtomicBool,
    /// What is left to send of a refusal.
    refusal: Bytes,
    unrouted: Arc<Unrouted>,
    /// Says when the request's body may be read.
    pace: Mutex<Option<Pace>>,
    /// `None` where no pool isolated connections when it was accepted: each of its requests is for itself then.
    stay: Option<Stay>,
}

impl Downstream {
    /// `table`: where its requests go.
    pub(crate) fn new(proxy: HttpProxy<Proxy>, unrouted: Arc<Unrouted>, table: Arc<ArcSwap<Table>>) -> Self {
        Self { proxy: Arc::new(proxy), unrouted, table }
    }
}

#[async_trait]
impl ServerApp for Downstream {
    async fn process_new(self: &Arc<Self>, stream: Stream, shutdown: &ShutdownWatch) -> Option<Stream> {
        let stay = match self.table.load().isolates_connections.then(Stay::begin).transpose() {
            Ok(stay) => stay,
            Err(error) => {
                // Each request is for itself then.
                tracing::error!(%error, "connection without a stay");
                None
            }
        };
        let connection = Connection {
            stream,
            within: AtomicBool::new(false),
            refusal: Bytes::new(),
            unrouted: Arc::clone(&self.unrouted),
            pace: Mutex::new(None),
            stay,
        };
        self.proxy.process_new(Box::new(connection), shutdown).await
    }

    async fn cleanup(&self) {
        self.proxy.cleanup().await;
    }
}

/// From now on the hooks see what becomes of this request.
pub(crate) fn hooks_begin(session: &Session) {
    set_within(session, true);
}

/// They have seen all of it.
pub(crate) fn hooks_end(session: &Session) {
    set_within(session, false);
    hold_by(session, None);
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
        // One task has the connection; it needs no order.
        connection.within.store(within, Relaxed);
    }
}

fn connection(session: &Session) -> Option<&Connection> {
    session.as_downstream().stream()?.as_any().downcast_ref()
}

impl Connection {
    fn within(&self) -> bool {
        self.within.load(Relaxed)
    }

    /// Takes `head` for a refusal if it is one.
    fn take_refusal(&mut self, head: &[u8]) {
        if self.refusal.is_empty() && !self.within() && head.starts_with(REFUSAL) {
            self.refusal = named(head);
            let digest = self.stream.get_socket_digest();
            let peer = digest.as_ref().and_then(|digest| digest.peer_addr()?.as_inet().copied());
            self.unrouted.refused_unread(Refusal::BadRequest, peer.map(|peer| peer.ip()));
        }
    }
}

/// The response's header with the refusal's word in it, and without the name of weir's HTTP library.
fn named(head: &[u8]) -> Bytes {
    let mut named = Vec::with_capacity(head.len() + 32);
    for line in head.split_inclusive(|byte| *byte == b'\n') {
        if line == b"\r\n" {
            named.extend_from_slice(b"weir-error: ");
            named.extend_from_slice(Refusal::BadRequest.word().as_bytes());
            named.extend_from_slice(b"\r\n");
        }
        if !line.get(..7).is_some_and(|name| name.eq_ignore_ascii_case(b"server:")) {
            named.extend_from_slice(line);
        }
    }
    named.into()
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(pace) = self.pace.get_mut() {
            ready!(pace.poll_free(cx));
        }
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        this.take_refusal(bytes);
        if this.refusal.is_empty() {
            return Pin::new(&mut this.stream).poll_write(cx, bytes);
        }
        while !this.refusal.is_empty() {
            let written = ready!(Pin::new(&mut this.stream).poll_write(cx, &this.refusal))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            this.refusal.advance(written);
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.within() {
            return Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        }
        let first = slices.iter().find(|slice| !slice.is_empty()).map_or(&[][..], |slice| slice);
        self.poll_write(cx, first)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[async_trait]
impl Shutdown for Connection {
    async fn shutdown(&mut self) {
        self.stream.shutdown().await;
    }
}

#[async_trait]
impl Peek for Connection {
    async fn try_peek(&mut self, buffer: &mut [u8]) -> io::Result<bool> {
        self.stream.try_peek(buffer).await
    }
}

impl UniqueID for Connection {
    fn id(&self) -> UniqueIDType {
        self.stream.id()
    }
}

impl Ssl for Connection {
    fn get_ssl(&self) -> Option<&TlsRef> {
        self.stream.get_ssl()
    }

    fn get_ssl_digest(&self) -> Option<Arc<SslDigest>> {
        self.stream.get_ssl_digest()
    }

    fn selected_alpn_proto(&self) -> Option<ALPN> {
        self.stream.selected_alpn_proto()
    }
}

impl GetTimingDigest for Connection {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        self.stream.get_timing_digest()
    }

    fn get_read_pending_time(&self) -> Duration {
        self.stream.get_read_pending_time()
    }

    fn get_write_pending_time(&self) -> Duration {
        self.stream.get_write_pending_time()
    }
}

impl GetProxyDigest for Connection {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        self.stay.as_ref().map(Stay::digest).or_else(|| self.stream.get_proxy_digest())
    }

    fn set_proxy_digest(&mut self, digest: ProxyDigest) {
        self.stream.set_proxy_digest(digest);
    }
}

impl GetSocketDigest for Connection {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.stream.get_socket_digest()
    }

    fn set_socket_digest(&mut self, digest: SocketDigest) {
        self.stream.set_socket_digest(digest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_gets_its_word_and_loses_the_library_s_name() {
        let head = b"HTTP/1.1 400 Bad Request\r\nServer: Pingora\r\nDate: x\r\nContent-Length: 0\r\n\r\n";
        let expected =
            "HTTP/1.1 400 Bad Request\r\nDate: x\r\nContent-Length: 0\r\nweir-error: bad_request\r\n\r\n";
        assert_eq!(std::str::from_utf8(&named(head)).unwrap(), expected);
    }
}
