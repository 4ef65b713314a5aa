//! The client's stream as pingora gets it; see [`super`].

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU32};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Buf, Bytes, BytesMut};
use http::HeaderValue;
use parking_lot::Mutex;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::tls::{SslDigest, TlsRef};
use pingora::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, Stream,
    TimingDigest, UniqueID, UniqueIDType,
};
use pingora::server::ShutdownWatch;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::OwnedSemaphorePermit;

use super::deadline::HeaderDeadline;
use crate::answer::Refusal;
use crate::filter::Place;
use crate::patience::BodyDeadline;
use crate::record::Unrouted;
use crate::tenancies::Stay;
use crate::upstream::Pace;

/// How pingora's own refusals begin, and nothing else that it writes between two requests of HTTP/1.
const REFUSAL: &[u8] = b"HTTP/1.1 400 ";

/// How a client's HTTP/2 begins (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// See [`super`].
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) stream: Stream,
    /// HTTP/2 is spoken here by clients that know it.
    pub(super) http2_by_knowledge: bool,
    /// Bytes that were looked at and not yet read.
    pub(super) ahead: BytesMut,
    pub(super) phase: Phase,
    pub(super) deadline: HeaderDeadline,
    /// What is left to send of a refusal.
    pub(super) refusal: Bytes,
    pub(super) unrouted: Arc<Unrouted>,
    /// Says when the request's body may be read.
    pub(super) pace: Mutex<Option<Pace>>,
    /// The request's body, while it is waited for.
    pub(super) body: Mutex<Option<BodyDeadline>>,
    pub(super) idle_timeout: Duration,
    /// `None` where no pool isolated connections when it was accepted: each of its requests is for itself then.
    pub(super) stay: Option<Stay>,
    /// Whether its listener is there no more.
    pub(super) closing: ShutdownWatch,
    /// Its places among the listener's connections, and among its client's if those are counted.
    pub(super) _places: (OwnedSemaphorePermit, Option<Place>),
}

/// Where the connection is between pingora and the hooks.
#[derive(Debug, Default)]
pub(super) struct Phase {
    /// A request of HTTP/1 is in the hooks' hands.
    within: AtomicBool,
    /// Requests that were handed to them, modulo 2^32.
    requests: AtomicU32,
    /// The client speaks HTTP/2, whose streams have hooks of their own.
    http2: bool,
    /// Bytes of the beginning of HTTP/2 that are still to come.
    preface_left: usize,
}

impl Phase {
    /// Of a connection on which `http2` was agreed upon or not.
    pub(super) fn new(http2: bool) -> Self {
        let preface_left = if http2 { PREFACE.len() } else { 0 };
        Self { http2, preface_left, ..Self::default() }
    }

    pub(super) fn set_within(&self, within: bool) {
        // One task has the connection; it needs no order.
        self.within.store(within, Relaxed);
        if within {
            self.requests.fetch_add(1, Relaxed);
        }
    }

    /// Only pingora itself can write what is written now, and it speaks HTTP/1.
    fn is_between(&self) -> bool {
        !self.http2 && !self.within.load(Relaxed)
    }

    /// A header is due: the whole of it in HTTP/1, the connection's beginning in HTTP/2.
    fn awaits_header(&self) -> bool {
        if self.http2 { self.preface_left > 0 } else { !self.within.load(Relaxed) }
    }
}

impl Connection {
    /// Takes `head` for a refusal if it is one.
    fn take_refusal(&mut self, head: &[u8]) {
        if self.refusal.is_empty() && self.phase.is_between() && head.starts_with(REFUSAL) {
            let hsts = self.stay.as_ref().and_then(|stay| stay.of().hsts.as_ref());
            self.refusal = named(head, hsts);
            self.unrouted.refused_unread(Refusal::BadRequest, self.peer());
        }
    }

    fn peer(&self) -> Option<std::net::IpAddr> {
        let digest = self.stream.get_socket_digest()?;
        Some(digest.peer_addr()?.as_inet()?.ip())
    }

    /// Whether the client begins with HTTP/2. Known at the first byte that is another: an HTTP/1 request may be shorter
    /// than that beginning, and waits for its answer.
    fn poll_preface(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        while self.ahead.len() < PREFACE.len() {
            let mut bytes = [0; PREFACE.len()];
            let mut buffer = ReadBuf::new(&mut bytes[self.ahead.len()..]);
            ready!(self.poll_read_timed(cx, &mut buffer))?;
            let read = buffer.filled();
            self.ahead.extend_from_slice(read);
            if read.is_empty() || !PREFACE.starts_with(&self.ahead) {
                return Poll::Ready(Ok(false));
            }
        }
        self.phase = Phase { http2: true, ..Phase::default() };
        Poll::Ready(Ok(true))
    }

    /// As [`Self::poll_read_timed`], and fails when a body is late.
    fn poll_read_body(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = self.poll_read_timed(cx, buffer);
        match (self.body.get_mut(), read.is_ready()) {
            (None, _) => {}
            (Some(body), true) => body.received(buffer.filled().len() - before),
            (Some(body), false) => {
                ready!(body.poll_late(cx));
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
        }
        read
    }

    /// Reads from the stream itself, and fails when a header is late.
    fn poll_read_timed(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.phase.awaits_header() {
            return Pin::new(&mut self.stream).poll_read(cx, buffer);
        }
        self.deadline.follow(self.phase.requests.load(Relaxed));
        let before = buffer.filled().len();
        if !self.deadline.is_late(cx) {
            let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
            let received = buffer.filled().len() - before;
            if received > 0 {
                self.deadline.received();
                self.phase.preface_left = self.phase.preface_left.saturating_sub(received);
            }
            if read.is_ready() || !self.deadline.arm(cx) {
                return read;
            }
        }
        self.unrouted.refused_unread(Refusal::HeaderTimeout, self.peer());
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

/// The response's header with the refusal's word in it, and what the listener's answers have, and without the name of
/// weir's HTTP library.
fn named(head: &[u8], hsts: Option<&HeaderValue>) -> Bytes {
    let mut named = Vec::with_capacity(head.len() + 128);
    for line in head.split_inclusive(|byte| *byte == b'\n') {
        if line == b"\r\n" {
            named.extend_from_slice(b"weir-error: ");
            named.extend_from_slice(Refusal::BadRequest.word().as_bytes());
            named.extend_from_slice(b"\r\n");
            if let Some(hsts) = hsts {
                named.extend_from_slice(b"strict-transport-security: ");
                named.extend_from_slice(hsts.as_bytes());
                named.extend_from_slice(b"\r\n");
            }
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
        let this = &mut *self;
        if let Some(pace) = this.pace.get_mut()
            && pace.poll_free(cx).is_pending()
        {
            if let Some(body) = this.body.get_mut() {
                body.rest();
            }
            return Poll::Pending;
        }
        if this.ahead.is_empty() {
            return this.poll_read_body(cx, buffer);
        }
        let taken = this.ahead.len().min(buffer.remaining());
        buffer.put_slice(&this.ahead.split_to(taken));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if let Some(body) = this.body.get_mut() {
            body.rest();
        }
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
        if !self.phase.is_between() {
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
    /// pingora asks for as many bytes as a client's HTTP/2 begins with, and compares. Where no HTTP/2 is spoken the buffer
    /// stays as it is, which is no such beginning, and nothing is waited for.
    async fn try_peek(&mut self, buffer: &mut [u8]) -> io::Result<bool> {
        if self.http2_by_knowledge {
            let begun = poll_fn(|cx| self.poll_preface(cx)).await?;
            if begun {
                buffer.copy_from_slice(PREFACE);
            }
        }
        Ok(true)
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
        assert_eq!(std::str::from_utf8(&named(head, None)).unwrap(), expected);
        let value = HeaderValue::from_static("max-age=1");
        let more = format!("{}strict-transport-security: max-age=1\r\n\r\n", &expected[..expected.len() - 2]);
        assert_eq!(std::str::from_utf8(&named(head, Some(&value))).unwrap(), more);
    }
}
