//! What a request says about itself, and what has been answered.

use http::{StatusCode, header};
use pingora::http::RequestHeader;
use pingora::protocols::http::authority::{RawTargetAuthority, raw_target_authority};
use pingora::proxy::Session;

use crate::http2;
use crate::upstream::Traffic;

/// Bodies up to this, bytes, are written to a VM in one go even if it reads nothing: Linux makes a new connection's send
/// buffer as large as 20 segments, 45 KiB with overhead at a MTU of 1500.
const SMALL_BODY: u64 = 32 * 1024;

/// The authority that the request is for, if it names one, and its target without it. pingora has refused requests
/// whose authorities contradict each other.
pub(crate) fn authority_and_target(request: &RequestHeader) -> (Option<&[u8]>, &[u8]) {
    let host = request.headers.get(header::HOST).map(http::HeaderValue::as_bytes);
    match raw_target_authority(request.raw_path()) {
        RawTargetAuthority::Absolute { authority, path_and_query, .. } => {
            // An absolute URI may leave its path out.
            (Some(authority), if path_and_query.starts_with(b"/") { path_and_query } else { b"/" })
        }
        RawTargetAuthority::None | RawTargetAuthority::AmbiguousAuthority => {
            let authority = request.uri.authority().map(|authority| authority.as_str().as_bytes());
            (authority.or(host), request.raw_path())
        }
    }
}

/// `GET http://host/path` becomes `GET /path` with `Host: host`, as a server that is no proxy expects it.
pub(crate) fn to_origin_form(request: &mut RequestHeader) -> pingora::Result<()> {
    if let RawTargetAuthority::Absolute { authority, path_and_query, .. } =
        raw_target_authority(request.raw_path())
    {
        let slash: &[u8] = if path_and_query.starts_with(b"/") { b"" } else { b"/" };
        let (authority, target) = (authority.to_vec(), [slash, path_and_query].concat());
        request.set_raw_path(&target)?;
        request.insert_header(header::HOST, authority)?;
    }
    Ok(())
}

pub(crate) fn traffic(session: &mut Session) -> Traffic {
    let has_open_body = http2::has_open_body(session);
    let headers = &session.req_header().headers;
    if headers.get(header::UPGRADE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket")) {
        return Traffic::Tunnel;
    }
    let length =
        headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let large = has_open_body
        || headers.contains_key(header::TRANSFER_ENCODING)
        || headers.contains_key(header::CONTENT_LENGTH) && length.is_none_or(|length| length > SMALL_BODY);
    if large { Traffic::Duplex } else { Traffic::Exchange }
}

/// The status that the client got, if it got a final one.
pub(crate) fn status_sent(session: &Session) -> Option<StatusCode> {
    session.response_written().map(|response| response.status).filter(|status| is_final(*status))
}

/// Whether no other answer follows.
pub(crate) fn is_final(status: StatusCode) -> bool {
    !status.is_informational() || status == StatusCode::SWITCHING_PROTOCOLS
}

/// Largest request header that is sent on, bytes. It fits into a connection's send buffer, so that it can be written
/// whole before the VM's answer is read, whatever the VM does. nginx allows as much.
const HEADER_MAX: usize = 32 * 1024;

/// Whether the header, as it is written to a VM, is at most [`HEADER_MAX`] bytes.
pub(crate) fn header_fits(request: &RequestHeader) -> bool {
    header_bytes(request) <= HEADER_MAX
}

/// Bytes of the request's target and header fields, as HTTP/1.1 writes them.
pub(crate) fn header_bytes(request: &RequestHeader) -> usize {
    const AROUND_A_FIELD: usize = ": \r\n".len();
    let fields =
        request.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + AROUND_A_FIELD);
    request.raw_path().len() + fields.sum::<usize>()
}

/// Whether nobody can read the body's end in two ways: there is at most one length, given once, and no coding but `chunked`,
/// given once. Two equal lengths mean the same (RFC 9112 §6.3 lets a proxy merge them), and so does a coding given twice to
/// who looks at the last one only; but whoever sends that is no client worth the risk that a VM reads it otherwise, and other
/// codings would have to be undone by who asks for the body unchunked (RFC 9112 §6.1).
pub(crate) fn has_one_framing(request: &RequestHeader) -> bool {
    let one = |name, is_right: fn(&[u8]) -> bool| {
        let mut values = request.headers.get_all(name).iter();
        values.next().is_none_or(|first| values.next().is_none() && is_right(first.as_bytes()))
    };
    let is_length = |value: &[u8]| !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    let is_chunked = |value: &[u8]| value.eq_ignore_ascii_case(b"chunked");
    one(header::CONTENT_LENGTH, is_length) && one(header::TRANSFER_ENCODING, is_chunked)
}
