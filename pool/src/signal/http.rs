//! Asking one VM for its metrics.
//!
//! In HTTP/1.0, so that the answer's body is its bytes and nothing around them (RFC 9112, section 6.1: nobody sends
//! chunks to who has not said HTTP/1.1). What answers is a guest: of the head [`HEAD_MAX`] bytes are read, of the body
//! [`BODY_MAX`], of which a line is kept, and the caller bounds the time.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use weir_config::model::{MetricSelector, Signal};

use super::exposition::{Exposition, ExpositionError};

/// Longest head of an answer, bytes.
const HEAD_MAX: usize = 8 * 1024;
/// Most headers in it.
const HEADERS_MAX: usize = 64;
/// Longest body, bytes.
const BODY_MAX: u64 = 1 << 20;

/// Why a VM has told no value.
#[derive(Debug, thiserror::Error)]
pub(super) enum ScrapeError {
    #[error("connection")]
    Connection(#[from] io::Error),
    #[error("no whole answer within {0:?}")]
    Late(Duration),
    #[error("answer is no http")]
    NoHttp,
    #[error("answer has status {0}")]
    Status(u16),
    #[error("answer has a {0}")]
    Encoded(&'static str),
    #[error("answer is cut off")]
    Cut,
    #[error("answer is longer than {BODY_MAX} bytes")]
    TooLong,
    #[error("answer is not in the text format")]
    Text(#[from] ExpositionError),
}

impl ScrapeError {
    /// Value of the `result` label of `weir_signal_scrapes_total`.
    pub(super) fn label(&self) -> &'static str {
        match self {
            Self::Connection(_) => "unreachable",
            Self::Late(_) => "timeout",
            Self::NoHttp | Self::Encoded(_) | Self::Cut => "bad_http",
            Self::Status(_) => "bad_status",
            Self::TooLong => "too_long",
            Self::Text(ExpositionError::Missing) => "missing",
            Self::Text(_) => "bad_text",
        }
    }
}

/// What the VM that listens at `address` says of the metric: finite, not negative.
pub(super) async fn scrape(address: SocketAddr, signal: &Signal) -> Result<f64, ScrapeError> {
    let asked = ask(address, &signal.scrape, &signal.metric);
    timeout(signal.timeout, asked).await.unwrap_or(Err(ScrapeError::Late(signal.timeout)))
}

async fn ask(address: SocketAddr, path: &str, metric: &MetricSelector) -> Result<f64, ScrapeError> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!(
        "GET {path} HTTP/1.0\r\nhost: localhost\r\nuser-agent: weir-signal\r\naccept: text/plain;version=0.0.4\r\n\
         accept-encoding: identity\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut buffer = vec![0; HEAD_MAX];
    let mut filled = 0;
    let head = loop {
        match stream.read(&mut buffer[filled..]).await? {
            0 => return Err(ScrapeError::NoHttp),
            count => filled += count,
        }
        if let Some(head) = Head::parse(&buffer[..filled])? {
            break head;
        }
    };
    let mut body = Body { exposition: Exposition::new(metric), length: head.length, read: 0 };
    body.push(&buffer[head.end..filled])?;
    while !body.is_complete() {
        match stream.read(&mut buffer).await? {
            0 => break,
            count => body.push(&buffer[..count])?,
        }
    }
    body.finish()
}

/// What of an answer's head matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Head {
    /// Where the body begins.
    end: usize,
    /// That of the body, bytes; `None`: it ends with the connection.
    length: Option<u64>,
}

impl Head {
    /// `None`: `bytes` do not hold all of it yet.
    fn parse(bytes: &[u8]) -> Result<Option<Self>, ScrapeError> {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut response = httparse::Response::new(&mut headers);
        let end = match response.parse(bytes).map_err(|_| ScrapeError::NoHttp)? {
            httparse::Status::Complete(end) => end,
            httparse::Status::Partial if bytes.len() < HEAD_MAX => return Ok(None),
            httparse::Status::Partial => return Err(ScrapeError::NoHttp),
        };
        match response.code {
            Some(200) => {}
            status => return Err(status.map_or(ScrapeError::NoHttp, ScrapeError::Status)),
        }
        let mut length = None;
        for header in response.headers {
            if header.name.eq_ignore_ascii_case("transfer-encoding") {
                return Err(ScrapeError::Encoded("transfer-encoding"));
            }
            let is_plain = header.value.eq_ignore_ascii_case(b"identity");
            if header.name.eq_ignore_ascii_case("content-encoding") && !is_plain {
                return Err(ScrapeError::Encoded("content-encoding"));
            }
            if header.name.eq_ignore_ascii_case("content-length") {
                let told = content_length(header.value).ok_or(ScrapeError::NoHttp)?;
                if length.replace(told).is_some_and(|other| other != told) {
                    return Err(ScrapeError::NoHttp);
                }
            }
        }
        Ok(Some(Self { end, length }))
    }
}

/// Digits only (RFC 9110, section 8.6).
fn content_length(value: &[u8]) -> Option<u64> {
    let is_number = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    is_number.then(|| std::str::from_utf8(value).ok()?.parse().ok()).flatten()
}

/// An answer's body on its way.
#[derive(Debug)]
struct Body<'a> {
    exposition: Exposition<'a>,
    length: Option<u64>,
    read: u64,
}

impl Body<'_> {
    fn is_complete(&self) -> bool {
        self.length.is_some_and(|length| self.read >= length)
    }

    fn push(&mut self, bytes: &[u8]) -> Result<(), ScrapeError> {
        let left = self.length.map_or(u64::MAX, |length| length - self.read);
        let count = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
        self.read += count as u64;
        if self.read > BODY_MAX {
            return Err(ScrapeError::TooLong);
        }
        Ok(self.exposition.push(&bytes[..count])?)
    }

    fn finish(self) -> Result<f64, ScrapeError> {
        // Without a length only the end of a line tells that nothing is missing.
        let is_cut = self.length.map_or(self.exposition.is_cut(), |length| self.read < length);
        if is_cut { Err(ScrapeError::Cut) } else { Ok(self.exposition.finish()?) }
    }
}

#[cfg(test)]
mod tests;
