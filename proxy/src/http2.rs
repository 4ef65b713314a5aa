//! HTTP/2 with clients: what one connection may cost.
//!
//! The library bounds what a client can make it do for nothing: resets of streams that were just begun (CVE-2023-44487),
//! CONTINUATION frames without end, malformed requests. What is here bounds what a connection may hold: with these
//! limits at most 1 MiB of bodies that nobody has read yet, and for each of 100 streams 64 KiB of a response that the
//! client does not take.

use std::time::Duration;

use http::Version;
use pingora::apps::HttpServerOptions;
use pingora::protocols::http::v2::server::{H2Options, default_h2_options};
use pingora::proxy::Session;

/// Requests at once on a connection; RFC 9113 wants no less than 100.
const STREAMS: u32 = 100;
/// Of a request's body, bytes that a client may send ahead of the VM that reads it.
const STREAM_WINDOW: u32 = 256 * 1024;
/// The same of all requests of a connection.
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Of a response, bytes that may wait for the client.
const SEND_BUFFER: usize = 64 * 1024;
/// Decoded header of a request, bytes, with 32 more for each field (RFC 9113 §6.5.2). The hooks allow less.
const HEADER_LIST: u32 = 64 * 1024;

/// What pingora makes connections with.
pub(crate) fn limits() -> H2Options {
    let mut options = default_h2_options();
    options
        .max_concurrent_streams(STREAMS)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buffer_size(SEND_BUFFER)
        .max_header_list_size(HEADER_LIST);
    options
}

/// `idle`: how long a connection may be without a request.
pub(crate) fn server_options(idle: Duration) -> HttpServerOptions {
    let mut options = HttpServerOptions::default();
    // Not to allow it, but to refuse it in the hooks.
    options.allow_connect_method_proxying = true;
    // Where a listener does not allow it, its connections say so.
    options.h2c = true;
    options.h2_idle_timeout = Some(idle);
    options
}

/// Whether a request has a body of unknown length, which HTTP/2 does not say in its header.
pub(crate) fn has_open_body(session: &mut Session) -> bool {
    session.req_header().version == Version::HTTP_2
        && !session.req_header().headers.contains_key(http::header::CONTENT_LENGTH)
        && !session.as_downstream_mut().is_body_empty()
}
