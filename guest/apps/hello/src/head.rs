//! A request's head: what is asked, and where its body ends.
//!
//! Framing is where a proxy and a server can be made to disagree (RFC 9112, 6.3 and 11.2), so everything that could be
//! read in two ways is malformed here.

use core::str;
use core::time::Duration;

use crate::app::Crash;

/// Most header fields in one request.
const FIELDS_MAX: usize = 64;

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    Greeting,
    Echo,
    Bytes(u64),
    Sleep(Duration),
    Spin(Duration),
    Crash(Crash),
    Metrics,
    NotFound,
    /// A known path with a query that makes no sense.
    BadQuery,
    /// A known path; these methods would do.
    NotAllowed(&'static str),
}

impl Route {
    /// Names for metrics, by [`Self::index`].
    pub(crate) const NAMES: [&'static str; 8] =
        ["/", "/echo", "/bytes", "/sleep", "/spin", "/crash", "/metrics", "other"];

    pub(crate) fn index(&self) -> usize {
        match self {
            Self::Greeting => 0,
            Self::Echo => 1,
            Self::Bytes(_) => 2,
            Self::Sleep(_) => 3,
            Self::Spin(_) => 4,
            Self::Crash(_) => 5,
            Self::Metrics => 6,
            Self::NotFound | Self::BadQuery | Self::NotAllowed(_) => 7,
        }
    }

    fn new(method: &str, target: &str) -> Self {
        let (path, query) = origin_form(target);
        let milliseconds = || number(query, "ms").map(Duration::from_millis);
        let (allowed, route) = match path {
            "/" => ("GET, HEAD", Some(Self::Greeting)),
            "/echo" => ("POST", Some(Self::Echo)),
            "/bytes" => ("GET, HEAD", number(query, "n").map(Self::Bytes)),
            "/sleep" => ("GET, HEAD", milliseconds().map(Self::Sleep)),
            "/spin" => ("GET, HEAD", milliseconds().map(Self::Spin)),
            "/crash" => ("GET, POST", crash(query).map(Self::Crash)),
            "/metrics" => ("GET, HEAD", Some(Self::Metrics)),
            _ => return Self::NotFound,
        };
        match route {
            _ if !allowed.split(", ").any(|allowed| allowed == method) => Self::NotAllowed(allowed),
            Some(route) => route,
            None => Self::BadQuery,
        }
    }
}

/// Where the body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// So many bytes.
    Length(u64),
    /// Chunks.
    Chunked,
}

/// A request without its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) route: Route,
    /// HEAD: the answer has no body.
    pub(crate) head_only: bool,
    pub(crate) framing: Framing,
    /// HTTP/1.1 rather than 1.0.
    pub(crate) is_1_1: bool,
    pub(crate) keep_alive: bool,
    /// The client waits for a "100 Continue" before it sends the body.
    pub(crate) expects_continue: bool,
}

/// Not a request, or one that could be read in two ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

#[derive(Default)]
struct Fields {
    length: Option<u64>,
    chunked: bool,
    hosts: u32,
    close: bool,
    keep_alive: bool,
    expects_continue: bool,
}

impl Head {
    /// The head at the start of `bytes` and its length; `None`: it is not complete yet.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Option<(Self, usize)>, Malformed> {
        let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
        let mut request = httparse::Request::new(&mut fields);
        let length = match request.parse(bytes).map_err(|_| Malformed)? {
            httparse::Status::Complete(length) => length,
            httparse::Status::Partial => return Ok(None),
        };
        let (Some(method), Some(target), Some(version)) = (request.method, request.path, request.version)
        else {
            return Err(Malformed);
        };
        let is_1_1 = version == 1;
        let fields = Fields::new(request.headers)?;
        if (is_1_1 && fields.hosts != 1) || fields.hosts > 1 {
            return Err(Malformed);
        }
        let framing = match (fields.chunked, fields.length) {
            (true, Some(_)) => return Err(Malformed),
            // HTTP/1.0 knows no chunks: whoever sent this may have meant another end.
            (true, None) if !is_1_1 => return Err(Malformed),
            (true, None) => Framing::Chunked,
            (false, length) => Framing::Length(length.unwrap_or(0)),
        };
        let head = Self {
            route: Route::new(method, target),
            head_only: method == "HEAD",
            framing,
            is_1_1,
            keep_alive: !fields.close && (is_1_1 || fields.keep_alive),
            expects_continue: is_1_1 && fields.expects_continue && framing != Framing::Length(0),
        };
        Ok(Some((head, length)))
    }
}

impl Fields {
    fn new(headers: &[httparse::Header<'_>]) -> Result<Self, Malformed> {
        let mut fields = Self::default();
        for header in headers {
            let is = |name: &str| header.name.eq_ignore_ascii_case(name);
            if is("content-length") {
                if fields.length.is_some() {
                    return Err(Malformed);
                }
                fields.length = Some(decimal(header.value).ok_or(Malformed)?);
            } else if is("transfer-encoding") {
                if fields.chunked || !header.value.eq_ignore_ascii_case(b"chunked") {
                    return Err(Malformed);
                }
                fields.chunked = true;
            } else if is("host") {
                fields.hosts += 1;
            } else if is("connection") {
                fields.close |= has_token(header.value, "close");
                fields.keep_alive |= has_token(header.value, "keep-alive");
            } else if is("expect") {
                fields.expects_continue |= header.value.eq_ignore_ascii_case(b"100-continue");
            }
        }
        Ok(fields)
    }
}

fn has_token(value: &[u8], token: &str) -> bool {
    value.split(|byte| *byte == b',').any(|part| part.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}

/// Digits and nothing else, as `Content-Length` must be: no sign, no list, no overflow.
fn decimal(value: &[u8]) -> Option<u64> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    str::from_utf8(value).ok()?.parse().ok()
}

/// Path and query of a target in origin form, or in the absolute form that proxies use.
fn origin_form(target: &str) -> (&str, &str) {
    let rest = match target.split_once("://") {
        Some((_, rest)) if !target.starts_with('/') => rest.find('/').map_or("/", |at| &rest[at..]),
        _ => target,
    };
    rest.split_once('?').unwrap_or((rest, ""))
}

fn value<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    query
        .split('&')
        .find_map(|pair| pair.split_once('=').filter(|(key, _)| *key == name).map(|(_, value)| value))
}

fn number(query: &str, name: &str) -> Option<u64> {
    decimal(value(query, name)?.as_bytes())
}

fn crash(query: &str) -> Option<Crash> {
    match value(query, "how")? {
        "panic" => Some(Crash::Panic),
        "fault" => Some(Crash::Fault),
        "halt" => Some(Crash::Halt),
        _ => None,
    }
}
