//! HTTP-01 (RFC 8555 §8.3): a CA fetches a file in plain text.

use bytes::Bytes;
use http::{Method, StatusCode, header};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::proxy::Session;

use crate::answer::send;
use crate::proxy::Proxy;
use crate::request::authority_and_target;
use crate::target;

impl Proxy {
    /// What a CA is to find, if that is what the request asks for. `secure`: it came by TLS, which CAs do not come by.
    pub(crate) fn challenge(&self, request: &RequestHeader, secure: bool) -> Option<Bytes> {
        if secure || !matches!(request.method, Method::GET | Method::HEAD) {
            return None;
        }
        let (authority, _) = authority_and_target(request);
        let host = target::host(authority?).ok()?;
        self.challenges.file(&host, request.uri.path())
    }

    /// Answers with a challenge's file.
    pub(crate) async fn show_challenge(&self, session: &mut Session, file: Bytes) -> pingora::Result<()> {
        self.close_if_draining(session);
        let mut header = ResponseHeader::build(StatusCode::OK, Some(3))?;
        header.insert_header(header::CONTENT_TYPE, "application/octet-stream")?;
        header.insert_header(header::CONTENT_LENGTH, file.len())?;
        header.insert_header(header::CACHE_CONTROL, "no-store")?;
        send(session, Box::new(header), file).await
    }
}

#[cfg(test)]
mod tests;
