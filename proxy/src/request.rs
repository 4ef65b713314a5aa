//! What a request says about itself, and what has been answered.

use http::{StatusCode, header};
use pingora::http::RequestHeader;
use pingora::protocols::http::authority::{RawTargetAuthority, raw_target_authority};
use pingora::proxy::Session;

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

pub(crate) fn traffic(request: &RequestHeader) -> Traffic {
    let headers = &request.headers;
    if headers.get(header::UPGRADE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket")) {
        return Traffic::Tunnel;
    }
    let length =
        headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let large = headers.contains_key(header::TRANSFER_ENCODING)
        || headers.contains_key(header::CONTENT_LENGTH) && length.is_none_or(|length| length > SMALL_BODY);
    if large { Traffic::Duplex } else { Traffic::Exchange }
}

/// The status that the client got, if it got a final one.
pub(crate) fn status_sent(session: &Session) -> Option<StatusCode> {
    let is_final =
        |status: &StatusCode| !status.is_informational() || *status == StatusCode::SWITCHING_PROTOCOLS;
    session.response_written().map(|response| response.status).filter(is_final)
}
