//! HTTP/2 to VMs: what one connection may carry.
//!
//! pingora has many requests on one connection, of many clients, and takes no more of a response than its client does.
//! What is left lies in windows (RFC 9113 §5.2). The connection's is as large as those of all its streams: however many
//! clients take nothing, the others are not held up by them.
//!
//! pingora does not read a response while it waits for a VM to take more of the request's body. An application that
//! answers as it reads stops reading when nobody takes its answer. So that it need not, the answer is taken before each
//! part of the body is sent, and what comes meanwhile has room in the stream's window, sixteen times the usual one.

use pingora::upstreams::peer::PeerOptions;

/// Requests at once on a connection; for more there is another one.
const STREAMS: u32 = 64;
/// Of a response, bytes that a VM may send ahead of its client.
const STREAM_WINDOW: u32 = 1024 * 1024;

/// Has connections speak HTTP/2, and nothing else.
pub(super) fn speak(options: &mut PeerOptions) {
    options.set_http_version(2, 2);
    options.max_h2_streams = STREAMS as usize;
    options.h2_stream_window_size = Some(STREAM_WINDOW);
    options.h2_connection_window_size = Some(STREAMS * STREAM_WINDOW);
}
