//! Response heads and whole small responses.

use alloc::string::String;
use core::fmt::{Display, Write};

use crate::head::Head;

/// How a response's body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Length {
    /// So many bytes.
    Known(u64),
    /// Chunks; only for HTTP/1.1.
    Chunked,
}

/// Status line and fields of one response.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Response {
    pub(crate) status: &'static str,
    pub(crate) content_type: &'static str,
    pub(crate) length: Length,
    /// "Allow", for 405.
    pub(crate) allow: Option<&'static str>,
    pub(crate) keep_alive: bool,
    /// The request was HTTP/1.0, where staying open must be said.
    pub(crate) is_1_0: bool,
}

/// Content type of everything that is meant to be read.
pub(crate) const TEXT: &str = "text/plain; charset=utf-8";

impl Response {
    /// An answer to `head` with `status` and a body of `length` bytes of text.
    pub(crate) fn new(head: &Head, status: &'static str, length: u64) -> Self {
        Self {
            status,
            content_type: TEXT,
            length: Length::Known(length),
            allow: None,
            keep_alive: head.keep_alive,
            is_1_0: !head.is_1_1,
        }
    }

    /// The answer to something that is no request.
    pub(crate) fn malformed() -> Self {
        Self {
            status: "400 Bad Request",
            content_type: TEXT,
            length: Length::Known(0),
            allow: None,
            keep_alive: false,
            is_1_0: false,
        }
    }

    /// Writes the head into `out`, as an answer of `vm`.
    pub(crate) fn write(&self, vm: impl Display, out: &mut String) {
        let Self { status, content_type, .. } = self;
        // A string takes any text.
        let _ = write!(out, "HTTP/1.1 {status}\r\ncontent-type: {content_type}\r\nx-weir-vm: {vm}\r\n");
        let _ = match self.length {
            Length::Known(length) => write!(out, "content-length: {length}\r\n"),
            Length::Chunked => write!(out, "transfer-encoding: chunked\r\n"),
        };
        if let Some(methods) = self.allow {
            let _ = write!(out, "allow: {methods}\r\n");
        }
        if !self.keep_alive {
            out.push_str("connection: close\r\n");
        } else if self.is_1_0 {
            out.push_str("connection: keep-alive\r\n");
        }
        out.push_str("\r\n");
    }
}
