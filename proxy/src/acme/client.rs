//! HTTP to a CA, which is believed no more than it has to be.
//!
//! Each request has a connection of its own, in the host's network namespace. It ends in time, its answer is bounded, and
//! no redirect is followed. Wherever the directory leads, it leads there by TLS; plain text is for a directory that is on
//! this machine.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{HOST, RETRY_AFTER};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Method, Request, Response, Uri};
use http_body_util::{BodyExt, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use instant_acme::{BodyWrapper, BytesResponse, HttpClient};
use parking_lot::Mutex;
use rustls::crypto::ring;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use weir_pool::Network;

use super::schedule::LONGEST_ASKED;

/// Longest body of an answer, bytes: a chain of certificates takes some kilobytes.
const LONGEST_BODY: usize = 1 << 20;
/// Longest header of an answer, bytes.
const LONGEST_HEADER: usize = 64 << 10;
/// How long one request may take, its connection included.
const REQUEST: Duration = Duration::from_secs(30);
/// How long one address may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// A name's addresses that are tried.
const ADDRESSES: usize = 4;

/// See the module's documentation. Clones are the same.
#[derive(Clone)]
pub(super) struct Client(Arc<Shared>);

struct Shared {
    network: Arc<dyn Network>,
    tls: Arc<ClientConfig>,
    /// The directory is on this machine, in plain text.
    plain: bool,
    /// What the last answer asked for.
    retry_after: Mutex<Option<Duration>>,
}

/// Why a CA's answer is not to be had.
#[derive(Debug, thiserror::Error)]
pub(super) enum RequestError {
    #[error("the ca leads to a url that is not https")]
    NotHttps,
    #[error("{0:?} is no host name")]
    Name(String),
    #[error("look {host} up")]
    LookUp { host: String, source: io::Error },
    #[error("{0} has no address")]
    NoAddress(String),
    #[error("connect to {address}")]
    Connect { address: SocketAddr, source: io::Error },
    #[error("tls with {host}")]
    Tls { host: String, source: io::Error },
    #[error("http with {host}")]
    Http { host: String, source: hyper::Error },
    #[error("the answer of {host} is not to be had or longer than 1 MiB")]
    Body { host: String, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("{0} took too long")]
    TooSlow(String),
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
        let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let plain = directory.starts_with("http://");
        let shared = Shared { network, tls: Arc::new(tls), plain, retry_after: Mutex::new(None) };
        Ok(Self(Arc::new(shared)))
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
            let host = request.uri().host().unwrap_or_default().to_owned();
            let is_directory = request.method() == Method::GET;
            let answered = match tokio::time::timeout(REQUEST, shared.ask(request)).await {
                Ok(Ok(answer)) if is_directory && !names_a_nonce_url(answer.body()) => {
                    Err(RequestError::NotHttps)
                }
                Ok(answered) => answered,
                Err(_) => Err(RequestError::TooSlow(host)),
            };
            let mut answer = answered.map_err(|error| instant_acme::Error::Other(Box::new(error)))?;
            *shared.retry_after.lock() = bound_retry_after(&mut answer);
            let (parts, body) = answer.into_parts();
            Ok(BytesResponse { parts, body: Box::new(body) })
        })
    }
}

impl Shared {
    async fn ask(&self, mut request: Request<BodyWrapper<Bytes>>) -> Result<Response<Bytes>, RequestError> {
        let uri = std::mem::take(request.uri_mut()).into_parts();
        let (Some(scheme), Some(authority)) = (uri.scheme, uri.authority) else {
            return Err(RequestError::NotHttps);
        };
        let secure = scheme == Scheme::HTTPS;
        let allowed = secure || self.plain && scheme == Scheme::HTTP;
        if !allowed {
            return Err(RequestError::NotHttps);
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        // In origin form (RFC 9112 §3.2.1), and so the host in a field of its own.
        *request.uri_mut() = Uri::from(uri.path_and_query.unwrap_or(PathAndQuery::from_static("/")));
        request.headers_mut().insert(HOST, host_field(&authority)?);
        let stream =
            self.connect(&host, authority.port_u16().unwrap_or(if secure { 443 } else { 80 })).await?;
        if !secure {
            return exchange(stream, request, host).await;
        }
        let name = ServerName::try_from(host.clone()).map_err(|_| RequestError::Name(host.clone()))?;
        let stream = TlsConnector::from(Arc::clone(&self.tls)).connect(name, stream).await;
        exchange(stream.map_err(|source| RequestError::Tls { host: host.clone(), source })?, request, host)
            .await
    }

    async fn connect(&self, host: &str, port: u16) -> Result<TcpStream, RequestError> {
        let mut addresses = match host.parse::<IpAddr>() {
            Ok(address) => vec![SocketAddr::new(address, port)],
            Err(_) => {
                let found = self.network.resolve(host, port).await;
                found.map_err(|source| RequestError::LookUp { host: host.to_owned(), source })?
            }
        };
        addresses.truncate(ADDRESSES);
        if self.plain {
            // Whatever the name resolves to.
            addresses.retain(|address| address.ip().is_loopback());
        }
        let mut last = RequestError::NoAddress(host.to_owned());
        for address in addresses {
            let connecting = tokio::time::timeout(CONNECT, self.network.connect(address)).await;
            match connecting.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
                Ok(stream) => return Ok(stream),
                Err(source) => last = RequestError::Connect { address, source },
            }
        }
        Err(last)
    }
}

fn host_field(authority: &Authority) -> Result<HeaderValue, RequestError> {
    // Whatever comes before it is a name and a password.
    let host = authority.as_str().rsplit('@').next().unwrap_or_default();
    HeaderValue::from_str(host).map_err(|_| RequestError::Name(host.to_owned()))
}

/// One request on a connection of its own.
async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    request: Request<BodyWrapper<Bytes>>,
    host: String,
) -> Result<Response<Bytes>, RequestError> {
    let http = |source| RequestError::Http { host: host.clone(), source };
    let mut builder = http1::Builder::new();
    let (mut sender, connection) =
        builder.max_buf_size(LONGEST_HEADER).handshake(TokioIo::new(stream)).await.map_err(http)?;
    // Dropped, it ends what it drives.
    let mut driving = JoinSet::new();
    driving.spawn(connection);
    let (parts, body) = sender.send_request(request).await.map_err(http)?.into_parts();
    let body = Limited::new(body, LONGEST_BODY).collect().await;
    let body = body.map_err(|source| RequestError::Body { host: host.clone(), source })?;
    Ok(Response::from_parts(parts, body.to_bytes()))
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
