//! What compression asks of a response's header, and what it says there (RFC 9110 §8.4, §8.8.3, §12.5.5).

use http::header::{self, HeaderName};
use http::{HeaderValue, StatusCode};
use pingora::http::ResponseHeader;
use weir_config::model::{Coding, Compress};

use super::accept::has_token;

/// Digests of the bytes that are sent (RFC 9530, RFC 3230, RFC 1864): they will be others.
const DIGESTS: [HeaderName; 4] = [
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("content-md5"),
];

/// Whether the response's body would be compressed for a client that takes it.
pub(super) fn may_be_compressed(rules: &Compress, response: &ResponseHeader) -> bool {
    let headers = &response.headers;
    let has_whole_body = !response.status.is_informational()
        && !matches!(
            response.status,
            StatusCode::NO_CONTENT
                | StatusCode::RESET_CONTENT
                | StatusCode::PARTIAL_CONTENT
                | StatusCode::NOT_MODIFIED
        )
        && !headers.contains_key(header::CONTENT_RANGE);
    has_whole_body
        && has_type(rules, response)
        && !headers.contains_key(header::CONTENT_ENCODING)
        && content_length(response).is_none_or(|length| length >= rules.min_length.max(1))
        && !has_token(headers, &header::CACHE_CONTROL, "no-transform")
}

fn has_type(rules: &Compress, response: &ResponseHeader) -> bool {
    let Some(value) = response.headers.get(header::CONTENT_TYPE) else { return false };
    let essence = value.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    rules.types.iter().any(|known| known.as_bytes().eq_ignore_ascii_case(essence))
}

/// The body's length, bytes, if the response gives it.
pub(super) fn content_length(response: &ResponseHeader) -> Option<u64> {
    response.headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Caches have to know, of a response that was not compressed, too.
pub(super) fn add_vary(response: &mut ResponseHeader) -> pingora::Result<()> {
    let has = |token| has_token(&response.headers, &header::VARY, token);
    if has("*") || has("accept-encoding") {
        return Ok(());
    }
    response.append_header(header::VARY, HeaderValue::from_static("accept-encoding"))?;
    Ok(())
}

/// Makes it the header of the compressed body.
pub(super) fn encode(response: &mut ResponseHeader, coding: Coding) -> pingora::Result<()> {
    response.insert_header(header::CONTENT_ENCODING, coding.name())?;
    response.remove_header(&header::CONTENT_LENGTH);
    // Ranges would be of other bytes each time.
    response.remove_header(&header::ACCEPT_RANGES);
    for digest in &DIGESTS {
        response.remove_header(digest);
    }
    weaken_etag(response)?;
    // HTTP/2 leaves it out.
    response.insert_header(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"))
}

/// A strong one would promise the same bytes (RFC 9110 §8.8.1). What is no entity tag goes.
fn weaken_etag(response: &mut ResponseHeader) -> pingora::Result<()> {
    let Some(etag) = response.headers.get(header::ETAG) else { return Ok(()) };
    if etag.as_bytes().starts_with(b"W/") {
        return Ok(());
    }
    if !etag.as_bytes().starts_with(b"\"") {
        response.remove_header(&header::ETAG);
        return Ok(());
    }
    let weak = [b"W/", etag.as_bytes()].concat();
    response.insert_header(header::ETAG, weak)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> Compress {
        Compress {
            algorithms: vec![Coding::Gzip],
            min_length: 1000,
            types: vec!["text/html".to_owned(), "application/json".to_owned()],
            level: 1,
        }
    }

    fn response(status: u16, fields: &[(&'static str, &str)]) -> ResponseHeader {
        let mut response = ResponseHeader::build(status, None).unwrap();
        for (name, value) in fields {
            response.append_header(*name, *value).unwrap();
        }
        response
    }

    #[test]
    fn only_what_gains_by_it() {
        let html = ("content-type", "text/html");
        for (status, fields, expected) in [
            (200, &[html][..], true),
            (200, &[("content-type", "Text/HTML; charset=utf-8")], true),
            (404, &[html], true),
            (200, &[html, ("content-length", "1000")], true),
            (200, &[html, ("content-length", "999")], false),
            (200, &[], false),
            (200, &[("content-type", "image/png")], false),
            (200, &[("content-type", "text/htmlx")], false),
            (200, &[html, ("content-encoding", "br")], false),
            (200, &[html, ("content-encoding", "identity")], false),
            (200, &[html, ("cache-control", "public"), ("cache-control", "max-age=1, No-Transform")], false),
            (200, &[html, ("cache-control", "no-cache")], true),
            (200, &[html, ("content-range", "bytes 0-1/2")], false),
            (206, &[html], false),
            (204, &[html], false),
            (205, &[html], false),
            (304, &[html], false),
            (101, &[html], false),
        ] {
            let response = response(status, fields);
            assert_eq!(may_be_compressed(&rules(), &response), expected, "{status} {fields:?}");
        }
    }

    #[test]
    fn the_header_tells_the_truth() {
        for (etag, weak) in
            [("\"x\"", Some("W/\"x\"")), ("W/\"x\"", Some("W/\"x\"")), ("x", None), ("\"", Some("W/\""))]
        {
            let mut header = response(
                200,
                &[
                    ("etag", etag),
                    ("content-length", "5"),
                    ("accept-ranges", "bytes"),
                    ("content-digest", "sha-256=:x:"),
                    ("content-md5", "x"),
                ],
            );
            encode(&mut header, Coding::Brotli).unwrap();
            let field = |name: &str| header.headers.get(name).map(|value| value.to_str().unwrap());
            assert_eq!(field("etag"), weak);
            assert_eq!(field("content-encoding"), Some("br"));
            assert_eq!(header.headers.len(), 2 + usize::from(weak.is_some()), "{:?}", header.headers);
        }
    }

    #[test]
    fn vary_is_added_once() {
        for (before, after) in [
            (&[][..], &["accept-encoding"][..]),
            (&["origin"], &["origin", "accept-encoding"]),
            (&["origin, Accept-Encoding"], &["origin, Accept-Encoding"]),
            (&["*"], &["*"]),
            (&["accept"], &["accept", "accept-encoding"]),
        ] {
            let fields: Vec<_> = before.iter().map(|value| ("vary", *value)).collect();
            let mut header = response(200, &fields);
            add_vary(&mut header).unwrap();
            let found: Vec<_> =
                header.headers.get_all("vary").iter().map(|value| value.to_str().unwrap()).collect();
            assert_eq!(found, after);
        }
    }
}
