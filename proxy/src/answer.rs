//! What weir itself answers where no VM does: a status, one line of text, and the reason as a word for programs in the
//! `weir-error` header.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use pingora::http::ResponseHeader;
use pingora::protocols::http::ServerSession;
use pingora::proxy::Session;
use weir_pool::LeaseError;

use crate::resilience::Page;
use crate::{grpc, hsts};

/// How much of a refused request's body is read and thrown away, bytes, so that the answer reaches a client that is
/// still sending: a socket closed with unread data resets the connection.
const LINGER_BYTES: usize = 256 * 1024;
/// How long that may take.
const LINGER_TIME: Duration = Duration::from_secs(2);

/// A field of an answer's header.
pub(crate) type Field = (HeaderName, HeaderValue);

/// Why weir answers in a VM's stead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The request makes no sense.
    BadRequest,
    /// The request's header is larger than what weir sends on.
    HeaderTooLarge,
    /// The client took too long for the request's header.
    HeaderTimeout,
    /// No route matches.
    NoRoute,
    /// The route takes other methods only.
    MethodNotAllowed,
    /// The route is not for clients with this address.
    AddressDenied,
    /// A rule of the route's refuses it, with this status.
    Rule(StatusCode),
    /// The client has not said who it is, or nobody believes it.
    Unauthorized,
    /// Too many clients say who they are at once.
    AuthBusy,
    /// The request's body is larger than the route takes.
    BodyTooLarge,
    /// The request's body came too slowly.
    BodyTimeout,
    /// The client took too long to take the answer; never sent.
    WriteTimeout,
    /// The request took longer than its route allows.
    Timeout,
    /// The client has as many requests under way as the route lets it have.
    TooManyInFlight,
    /// VMs refused, reset or died, and retries were used up or not allowed.
    VmFailed,
    /// The pool's wait queue is full.
    QueueFull(Duration),
    /// No VM has room, and requests for this pool do not wait.
    NoRoom(Duration),
    /// No VM had room in time.
    QueueTimeout(Duration),
    /// The pool cannot start VMs.
    StartFailed(Duration),
    /// Requests like this one kill VMs.
    Quarantined(Duration),
    /// The pool's circuit breaker lets nobody in.
    CircuitOpen(Duration),
    /// The pool has as many requests as its circuit breaker lets it have.
    PoolFull,
    /// The route is in maintenance, and is answered with this status.
    Maintenance(StatusCode, Option<Duration>),
    /// weir is going down.
    Draining,
    /// The VM did not begin to answer in time.
    UpstreamTimeout,
    /// A bug of weir's.
    Internal,
}

impl Refusal {
    /// Value of the `weir-error` header, and of the access log's `error`.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::BadRequest => "bad_request",
            Self::HeaderTooLarge => "header_too_large",
            Self::HeaderTimeout => "header_timeout",
            Self::NoRoute => "no_route",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::AddressDenied => "address_denied",
            Self::Rule(_) => "rule_denied",
            Self::Unauthorized => "unauthorized",
            Self::AuthBusy => "auth_busy",
            Self::BodyTooLarge => "body_too_large",
            Self::BodyTimeout => "body_timeout",
            Self::WriteTimeout => "write_timeout",
            Self::Timeout => "timeout",
            Self::TooManyInFlight => "too_many_in_flight",
            Self::VmFailed => "vm_failed",
            Self::QueueFull(_) => "queue_full",
            Self::NoRoom(_) => "no_room",
            Self::QueueTimeout(_) => "queue_timeout",
            Self::StartFailed(_) => "start_failed",
            Self::Quarantined(_) => "quarantined",
            Self::CircuitOpen(_) => "circuit_open",
            Self::PoolFull => "pool_full",
            Self::Maintenance(..) => "maintenance",
            Self::Draining => "draining",
            Self::UpstreamTimeout => "upstream_timeout",
            Self::Internal => "internal",
        }
    }

    pub(crate) fn status(self) -> StatusCode {
        match self {
            Self::BadRequest => StatusCode::BAD_REQUEST,
            Self::HeaderTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::HeaderTimeout | Self::BodyTimeout | Self::WriteTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::NoRoute => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::AddressDenied => StatusCode::FORBIDDEN,
            Self::Rule(status) => status,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooManyInFlight => StatusCode::TOO_MANY_REQUESTS,
            Self::VmFailed => StatusCode::BAD_GATEWAY,
            Self::QueueFull(_)
            | Self::NoRoom(_)
            | Self::QueueTimeout(_)
            | Self::StartFailed(_)
            | Self::Quarantined(_)
            | Self::CircuitOpen(_)
            | Self::PoolFull
            | Self::AuthBusy
            | Self::Draining => StatusCode::SERVICE_UNAVAILABLE,
            Self::Maintenance(status, _) => status,
            Self::UpstreamTimeout | Self::Timeout => StatusCode::GATEWAY_TIMEOUT,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::BadRequest => "bad request\n",
            Self::HeaderTooLarge => "request header too large\n",
            Self::HeaderTimeout => "the request header took too long\n",
            Self::NoRoute => "no route for this host and path\n",
            Self::MethodNotAllowed => "method not allowed\n",
            Self::AddressDenied => "not for this address\n",
            Self::Rule(_) => "refused by a rule\n",
            Self::Unauthorized => "credentials are missing or wrong\n",
            Self::AuthBusy => "too many credentials to verify at once\n",
            Self::BodyTooLarge => "request body too large\n",
            Self::BodyTimeout => "the request body took too long\n",
            Self::WriteTimeout => "the answer took too long\n",
            Self::Timeout => "the request took too long\n",
            Self::TooManyInFlight => "too many requests at once\n",
            Self::VmFailed => "the microVM failed\n",
            Self::QueueFull(_) => "too many requests wait for a microVM\n",
            Self::NoRoom(_) => "no microVM has room\n",
            Self::QueueTimeout(_) => "no microVM had room in time\n",
            Self::StartFailed(_) => "the microVM could not be started\n",
            Self::Quarantined(_) => "requests like this one made microVMs fail\n",
            Self::CircuitOpen(_) => "too many requests have failed\n",
            Self::PoolFull => "too many requests at once\n",
            Self::Maintenance(..) => "in maintenance\n",
            Self::Draining => "shutting down\n",
            Self::UpstreamTimeout => "the microVM did not answer in time\n",
            Self::Internal => "internal error\n",
        }
    }

    fn retry_after(self) -> Option<Duration> {
        match self {
            Self::QueueFull(after)
            | Self::NoRoom(after)
            | Self::QueueTimeout(after)
            | Self::StartFailed(after)
            | Self::Quarantined(after)
            | Self::CircuitOpen(after) => Some(after),
            Self::Maintenance(_, after) => after,
            // Another instance, or the next one, will take it; or a request ends.
            Self::Draining | Self::TooManyInFlight | Self::PoolFull | Self::AuthBusy => {
                Some(Duration::from_secs(1))
            }
            _ => None,
        }
    }

    /// `in_header`: all of the answer is to be in there, as gRPC has it.
    fn header(self, in_header: bool) -> pingora::Result<ResponseHeader> {
        let mut answer = if in_header {
            grpc::refusal(self.status(), self.text())?
        } else {
            let mut answer = ResponseHeader::build(self.status(), Some(8))?;
            answer.insert_header(header::CONTENT_TYPE, "text/plain; charset=utf-8")?;
            answer.insert_header(header::CONTENT_LENGTH, self.text().len())?;
            answer
        };
        answer.insert_header(header::CACHE_CONTROL, "no-store")?;
        answer.insert_header("weir-error", self.word())?;
        if let Some(after) = self.retry_after() {
            answer.insert_header(header::RETRY_AFTER, after.as_secs().max(1))?;
        }
        Ok(answer)
    }

    /// Sends the answer, with one more field in its header and another body, if there are such; a gRPC call gets no body. The
    /// connection stays open where the client and the state of the request allow it.
    pub(crate) async fn send_with(
        self,
        session: &mut Session,
        field: Option<Field>,
        page: Option<Page>,
    ) -> pingora::Result<()> {
        let is_call = grpc::is_call(session.req_header());
        let mut header = self.header(is_call)?;
        if let Some((name, value)) = field {
            header.insert_header(name, value)?;
        }
        let body = match page {
            _ if is_call => Bytes::new(),
            Some(page) => {
                page.describe(&mut header)?;
                page.body
            }
            None => Bytes::from_static(self.text().as_bytes()),
        };
        send(session, Box::new(header), body).await
    }
}

/// Sends an answer of weir's own. The connection stays open where the client and the state of the request allow it.
pub(crate) async fn send(
    session: &mut Session,
    mut header: Box<ResponseHeader>,
    body: Bytes,
) -> pingora::Result<()> {
    hsts::apply(session, &mut header)?;
    let is_head = session.req_header().method == Method::HEAD;
    let body = if is_head { Bytes::new() } else { body };
    match session.as_downstream_mut() {
        // An end in a frame of its own would be another answer to gRPC.
        ServerSession::H2(stream) if body.is_empty() => stream.write_response_header(header, true)?,
        _ => {
            session.write_response_header(header, is_head).await?;
            session.write_response_body(Some(body), true).await?;
        }
    }
    linger(session.as_downstream_mut()).await;
    Ok(())
}

impl From<&LeaseError> for Refusal {
    fn from(error: &LeaseError) -> Self {
        match error {
            LeaseError::QueueFull { retry_after } => Self::QueueFull(*retry_after),
            LeaseError::NoRoom { retry_after } => Self::NoRoom(*retry_after),
            LeaseError::TimedOut { retry_after } => Self::QueueTimeout(*retry_after),
            LeaseError::StartFailed { retry_after, .. } => Self::StartFailed(*retry_after),
            LeaseError::Quarantined { retry_after } => Self::Quarantined(*retry_after),
            LeaseError::ShuttingDown => Self::Draining,
        }
    }
}

async fn linger(session: &mut ServerSession) {
    if session.is_body_done() {
        return;
    }
    let read = async {
        let mut left = LINGER_BYTES;
        while let Ok(Some(chunk)) = session.read_request_body().await {
            let Some(rest) = left.checked_sub(chunk.len()) else { return };
            left = rest;
        }
    };
    // Whether it was read to its end or not, there is no more to be done.
    let _ = tokio::time::timeout(LINGER_TIME, read).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_has_a_complete_answer() {
        let after = Duration::from_millis(1500);
        for (refusal, status, retry_after) in [
            (Refusal::BadRequest, 400, None),
            (Refusal::HeaderTooLarge, 431, None),
            (Refusal::HeaderTimeout, 408, None),
            (Refusal::NoRoute, 404, None),
            (Refusal::MethodNotAllowed, 405, None),
            (Refusal::AddressDenied, 403, None),
            (Refusal::Rule(StatusCode::NOT_FOUND), 404, None),
            (Refusal::Unauthorized, 401, None),
            (Refusal::AuthBusy, 503, Some("1")),
            (Refusal::BodyTooLarge, 413, None),
            (Refusal::BodyTimeout, 408, None),
            (Refusal::WriteTimeout, 408, None),
            (Refusal::Timeout, 504, None),
            (Refusal::TooManyInFlight, 429, Some("1")),
            (Refusal::VmFailed, 502, None),
            (Refusal::QueueFull(after), 503, Some("1")),
            (Refusal::NoRoom(Duration::from_secs(1)), 503, Some("1")),
            (Refusal::QueueTimeout(Duration::ZERO), 503, Some("1")),
            (Refusal::StartFailed(Duration::from_secs(7)), 503, Some("7")),
            (Refusal::Quarantined(after), 503, Some("1")),
            (Refusal::CircuitOpen(after), 503, Some("1")),
            (Refusal::PoolFull, 503, Some("1")),
            (Refusal::Maintenance(StatusCode::GONE, None), 410, None),
            (Refusal::Maintenance(StatusCode::SERVICE_UNAVAILABLE, Some(after * 60)), 503, Some("90")),
            (Refusal::Draining, 503, Some("1")),
            (Refusal::UpstreamTimeout, 504, None),
            (Refusal::Internal, 500, None),
        ] {
            let header = refusal.header(false).unwrap();
            let field = |name: &str| header.headers.get(name).map(|value| value.to_str().unwrap());
            assert_eq!(header.status.as_u16(), status);
            assert_eq!(field("retry-after"), retry_after);
            assert_eq!(field("weir-error"), Some(refusal.word()));
            assert_eq!(field("content-length"), Some(refusal.text().len().to_string().as_str()));
            let call = refusal.header(true).unwrap();
            assert_eq!(call.status.as_u16(), 200);
            assert_eq!(call.headers["weir-error"], refusal.word());
            let message = call.headers["grpc-message"].to_str().unwrap();
            assert!(message.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b'%'), "{message}");
        }
    }
}
