//! What conditions ask about a request.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::OnceLock;

use http::{HeaderName, HeaderValue, Version};
use pingora::http::RequestHeader;
use weir_config::model::Fact;

use crate::request::authority_and_target;
use crate::target;

/// A request that has a route, as conditions see it. Strings are made when they are first asked for. Bytes that are no UTF-8
/// become U+FFFD, so that they hide nothing that stands beside them.
#[derive(Debug)]
pub struct Facts<'r> {
    request: &'r RequestHeader,
    client: Option<IpAddr>,
    tls: bool,
    path: OnceLock<Option<Cow<'r, str>>>,
    host: OnceLock<Option<Cow<'r, str>>>,
    client_text: OnceLock<String>,
}

impl<'r> Facts<'r> {
    /// Of a request from `client`, over a connection with TLS or without.
    pub fn new(request: &'r RequestHeader, client: Option<IpAddr>, tls: bool) -> Self {
        let (path, host, client_text) = (OnceLock::new(), OnceLock::new(), OnceLock::new());
        Self { request, client, tls, path, host, client_text }
    }

    pub(super) fn tls(&self) -> bool {
        self.tls
    }

    pub(super) fn has(&self, field: &HeaderName) -> bool {
        self.request.headers.contains_key(field)
    }

    /// `None`: it is no address, or there is no such field.
    pub(super) fn address(&self, fact: &Fact) -> Option<IpAddr> {
        match fact {
            Fact::ClientIp => self.client,
            other => self.text(other)?.parse().ok(),
        }
        .map(|address| address.to_canonical())
    }

    /// `None`: there is no such field.
    pub(super) fn text(&self, fact: &Fact) -> Option<Cow<'_, str>> {
        let text = match fact {
            Fact::Method => self.request.method.as_str().into(),
            Fact::Path => Cow::Borrowed(self.path.get_or_init(|| self.path()).as_deref()?),
            Fact::Query => self.query(),
            Fact::Host => Cow::Borrowed(self.host.get_or_init(|| self.host()).as_deref()?),
            Fact::HttpVersion => version(self.request.version).into(),
            Fact::ClientIp => self.client_text.get_or_init(|| self.client_text()).as_str().into(),
            Fact::Header(name) => return self.field(name),
        };
        Some(text)
    }

    fn path(&self) -> Option<Cow<'r, str>> {
        let (_, target) = authority_and_target(self.request);
        // A request whose path is none has no route.
        Some(match target::path(target).ok()? {
            Cow::Borrowed(path) => String::from_utf8_lossy(path),
            Cow::Owned(path) => String::from_utf8_lossy(&path).into_owned().into(),
        })
    }

    fn host(&self) -> Option<Cow<'r, str>> {
        let (authority, _) = authority_and_target(self.request);
        target::host(authority.unwrap_or_default()).ok()
    }

    fn query(&self) -> Cow<'r, str> {
        let (_, target) = authority_and_target(self.request);
        let query = target.iter().position(|byte| *byte == b'?').map(|at| &target[at + 1..]);
        String::from_utf8_lossy(query.unwrap_or_default())
    }

    fn client_text(&self) -> String {
        self.client.map(|client| client.to_canonical().to_string()).unwrap_or_default()
    }

    /// The values of all fields of this name (RFC 9110 §5.3).
    fn field(&self, name: &HeaderName) -> Option<Cow<'r, str>> {
        let mut values = self.request.headers.get_all(name).iter().map(HeaderValue::as_bytes);
        let mut all = String::from_utf8_lossy(values.next()?);
        for value in values {
            all = Cow::Owned(format!("{all}, {}", String::from_utf8_lossy(value)));
        }
        Some(all)
    }
}

fn version(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "1.0",
        Version::HTTP_2 => "2",
        _ => "1.1",
    }
}
