//! HTTP to a CA, which is believed no more than it has to be: by [`crate::outside`], and wherever the directory leads, it
//! leads there by TLS; plain text is for a directory that is on this machine.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::RETRY_AFTER;
use http::{HeaderValue, Method, Request, Response, Uri};
use instant_acme::{BodyWrapper, BytesResponse, HttpClient};
use parking_lot::Mutex;
use rustls::RootCertStore;
use weir_pool::Network;

use super::schedule::LONGEST_ASKED;
use crate::outside::{Outside, PlainText, RequestError};

/// How long one request may take, its connection included.
const REQUEST: Duration = Duration::from_secs(30);

/// See the module's documentation. Clones are the same.
#[derive(Clone)]
pub(super) struct Client(Arc<Shared>);

struct Shared {
    outside: Outside,
    /// What the last answer asked for.
    retry_after: Mutex<Option<Duration>>,
}

impl Client {
    /// For the CA at `directory`, whose own certificate leads to `roots`.
    ///
    /// # Errors
    /// If TLS cannot be set up.
    pub(super) fn new(
        network: Arc<dyn Network>,
        roots: RootCertStore,
        directory: &str,
    ) -> Result<Self, rustls::Error> {
        let plain_text =
            if directory.starts_with("http://") { PlainText::Loopback } else { PlainText::Refused };
        let outside = Outside::new(network, roots, plain_text, REQUEST)?;
        Ok(Self(Arc::new(Shared { outside, retry_after: Mutex::new(None) })))
    }

    /// How long the last answer asked not to be asked again, if it did.
    pub(super) fn asked_to_wait(&self) -> Option<Duration> {
        *self.0.retry_after.lock()
    }
}

impl HttpClient for Client {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, instant_acme::Error>> + Send>> {
        let shared = Arc::clone(&self.0);
        Box::pin(async move {
            let is_directory = request.method() == Method::GET;
            let answered = match shared.outside.ask(request).await {
                Ok(answer) if is_directory && !names_a_nonce_url(answer.body()) => {
                    Err(RequestError::NotHttps)
                }
                answered => answered,
            };
            let mut answer = answered.map_err(|error| instant_acme::Error::Other(Box::new(error)))?;
            *shared.retry_after.lock() = bound_retry_after(&mut answer);
            let (parts, body) = answer.into_parts();
            Ok(BytesResponse { parts, body: Box::new(body) })
        })
    }
}

/// Whether a directory, should it be one, says by a URL where nonces are: instant-acme panics where it is none.
fn names_a_nonce_url(directory: &[u8]) -> bool {
    let directory: serde_json::Value = serde_json::from_slice(directory).unwrap_or_default();
    directory["newNonce"].as_str().is_none_or(|url| url.parse::<Uri>().is_ok())
}

/// What an answer asks for; what it says from then on is bounded, since whoever adds it to a clock expects that.
fn bound_retry_after(answer: &mut Response<Bytes>) -> Option<Duration> {
    let field = answer.headers_mut().get_mut(RETRY_AFTER)?;
    let text = field.to_str().unwrap_or_default().trim();
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        // A date. Those who poll know what to do with it; a failure has a wait of its own.
        return None;
    }
    // More digits than fit are more seconds than anybody waits.
    let seconds = text.parse().unwrap_or(u64::MAX).min(LONGEST_ASKED.as_secs());
    *field = HeaderValue::from(seconds);
    Some(Duration::from_secs(seconds))
}
