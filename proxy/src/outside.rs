//! HTTP to servers that weir has to ask something itself: CAs, collectors of spans. They are believed no more than they
//! have to be.
//!
//! Each request has a connection of its own, in the host's network namespace. It ends in time, its answer is bounded, and
//! no redirect is followed.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Request, Response, Uri};
use http_body_util::{BodyExt, Limited};
use hyper::body::Body;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::crypto::ring;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use weir_pool::Network;

use crate::tls::{CertificateError, roots};

/// Longest body of an answer, bytes: a chain of certificates takes some kilobytes.
const LONGEST_BODY: usize = 1 << 20;
/// Longest header of an answer, bytes.
const LONGEST_HEADER: usize = 64 << 10;
/// How long one address may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// A name's addresses that are tried.
const ADDRESSES: usize = 4;

/// Who may be asked in plain text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PlainText {
    /// Nobody.
    Refused,
    /// Who is on this machine, whatever a name resolves to.
    Loopback,
    /// Anybody.
    Allowed,
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Outside {
    network: Arc<dyn Network>,
    tls: Arc<ClientConfig>,
    plain_text: PlainText,
    /// How long one request may take, its connection included.
    timeout: Duration,
}

/// Why an answer is not to be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RequestError {
    #[error("led to a url that is not https")]
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

/// The roots in the PEM file `ca`; `None`: those that this machine trusts, which may be none.
///
/// # Errors
/// If the file cannot be used.
pub(crate) fn trusted(ca: Option<&Path>) -> Result<RootCertStore, CertificateError> {
    if let Some(ca) = ca {
        return roots(ca);
    }
    let mut trusted = RootCertStore::empty();
    // Those that cannot be read are not trusted.
    trusted.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    Ok(trusted)
}

impl Outside {
    /// A way to servers whose certificates lead to `roots`.
    ///
    /// # Errors
    /// If TLS cannot be set up.
    pub(crate) fn new(
        network: Arc<dyn Network>,
        roots: RootCertStore,
        plain_text: PlainText,
        timeout: Duration,
    ) -> Result<Self, rustls::Error> {
        let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { network, tls: Arc::new(tls), plain_text, timeout })
    }

    /// The answer to a request whose URI is absolute.
    ///
    /// # Errors
    /// If there is none. An answer of any status is one.
    pub(crate) async fn ask<B>(&self, request: Request<B>) -> Result<Response<Bytes>, RequestError>
    where
        B: Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
    {
        let host = request.uri().host().unwrap_or_default().to_owned();
        let answered = tokio::time::timeout(self.timeout, self.ask_in_any_time(request)).await;
        answered.unwrap_or(Err(RequestError::TooSlow(host)))
    }

    async fn ask_in_any_time<B>(&self, mut request: Request<B>) -> Result<Response<Bytes>, RequestError>
    where
        B: Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
    {
        let uri = std::mem::take(request.uri_mut()).into_parts();
        let (Some(scheme), Some(authority)) = (uri.scheme, uri.authority) else {
            return Err(RequestError::NotHttps);
        };
        let secure = scheme == Scheme::HTTPS;
        let allowed = secure || self.plain_text != PlainText::Refused && scheme == Scheme::HTTP;
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
        if self.plain_text == PlainText::Loopback {
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
async fn exchange<B>(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    request: Request<B>,
    host: String,
) -> Result<Response<Bytes>, RequestError>
where
    B: Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
{
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
