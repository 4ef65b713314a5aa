//! Refusals that gRPC's clients understand.
//!
//! gRPC has its status in trailers, and HTTP's is 200 whatever happens. What is answered otherwise a client has to guess
//! from HTTP's status, by a table; weir answers what that table says, and why, and has its `weir-error` as ever.
//! (https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md and doc/http-grpc-status-mapping.md there.)

use http::{StatusCode, Version, header};
use pingora::http::{RequestHeader, ResponseHeader};

/// Whether `request` is a call.
pub(crate) fn is_call(request: &RequestHeader) -> bool {
    request.version == Version::HTTP_2
        && request.headers.get(header::CONTENT_TYPE).is_some_and(|kind| is_grpc(kind.as_bytes()))
}

/// `application/grpc`, which may be followed by `+` and a codec, or by parameters.
fn is_grpc(content_type: &[u8]) -> bool {
    let prefix = b"application/grpc";
    content_type.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
        && matches!(content_type.get(prefix.len()), None | Some(b'+' | b';'))
}

/// What says the same as an answer with `status` and `text` does: a header that is also its own trailers.
pub(crate) fn refusal(status: StatusCode, text: &'static str) -> pingora::Result<ResponseHeader> {
    let mut answer = ResponseHeader::build(StatusCode::OK, Some(6))?;
    answer.insert_header(header::CONTENT_TYPE, "application/grpc")?;
    answer.insert_header("grpc-status", code(status))?;
    // All of these are printable ASCII without a percent sign, which others would have to be written as.
    answer.insert_header("grpc-message", text.trim_end())?;
    Ok(answer)
}

/// The status that a client would guess.
fn code(status: StatusCode) -> &'static str {
    match status.as_u16() {
        // INTERNAL
        400 => "13",
        // UNAUTHENTICATED
        401 => "16",
        // PERMISSION_DENIED
        403 => "7",
        // UNIMPLEMENTED
        404 => "12",
        // UNAVAILABLE
        429 | 502..=504 => "14",
        // UNKNOWN
        _ => "2",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_told_by_their_content_type() {
        for (kind, expected) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("Application/gRPC;charset=utf-8", true),
            ("application/grpc-web", false),
            ("application/grp", false),
            ("", false),
        ] {
            let mut request = RequestHeader::build("POST", b"/a.B/C", None).unwrap();
            request.insert_header("content-type", kind).unwrap();
            assert!(!is_call(&request), "HTTP/1 has no calls");
            request.set_version(Version::HTTP_2);
            assert_eq!(is_call(&request), expected, "{kind}");
        }
    }

    #[test]
    fn each_status_has_its_code() {
        for (status, expected) in
            [(400, "13"), (401, "16"), (403, "7"), (404, "12"), (429, "14"), (503, "14"), (413, "2")]
        {
            let answer = refusal(StatusCode::from_u16(status).unwrap(), "why\n").unwrap();
            assert_eq!(answer.status, 200);
            assert_eq!(answer.headers["grpc-status"], expected);
            assert_eq!(answer.headers["grpc-message"], "why");
        }
    }
}
