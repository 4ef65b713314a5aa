//! Header rules of an intermediary (RFC 9110 §7.6): what is for this hop only is taken out, and who was on the way is
//! put in.
//!
//! For requests pingora's own policy takes out the hop-by-hop fields, before these rules are applied: `Connection` and
//! the fields it names (the forwarding fields and `Host` cannot be named: such a request is refused), `Keep-Alive`,
//! `Proxy-*`, `TE`, `Trailer`, `Transfer-Encoding` (the body is framed anew), and `Upgrade` unless it is for a
//! WebSocket. `TE: trailers` goes too, since pingora does not forward HTTP/1 trailers.

use std::net::IpAddr;

use http::header::{self, HeaderName};
use http::{HeaderMap, HeaderValue, Version};
use pingora::http::{RequestHeader, ResponseHeader};

use crate::tls::Identity;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

const CLIENT_SUBJECT: HeaderName = HeaderName::from_static("x-client-cert-subject");
const CLIENT_FINGERPRINT: HeaderName = HeaderName::from_static("x-client-cert-sha256");

/// Fields of a response that are for one hop only, whatever `Connection` says. `Transfer-Encoding` is not here: it
/// tells pingora how to frame the body towards the client.
const HOP_BY_HOP: [HeaderName; 6] = [
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    // pingora does not forward HTTP/1 trailers.
    header::TRAILER,
];

/// Tells the application whom the request comes from. `X-Forwarded-For` is appended to, so that what the client claims
/// stands before what weir knows; the others, and `Forwarded`, are not for clients to set.
pub(crate) fn forward_request(
    request: &mut RequestHeader,
    client: Option<IpAddr>,
    scheme: &'static str,
    via: Version,
) -> pingora::Result<()> {
    if let Some(client) = client {
        let client = client.to_canonical().to_string();
        let value = joined(&request.headers, &X_FORWARDED_FOR, client.as_bytes());
        request.insert_header(X_FORWARDED_FOR, value)?;
    }
    request.insert_header(X_FORWARDED_PROTO, scheme)?;
    match request.headers.get(header::HOST).cloned() {
        Some(host) => request.insert_header(X_FORWARDED_HOST, host)?,
        None => drop(request.remove_header(&X_FORWARDED_HOST)),
    }
    request.remove_header(&header::FORWARDED);
    if via == Version::HTTP_2 {
        join_cookies(request)?;
    }
    let value = joined(&request.headers, &header::VIA, via_weir(via));
    request.insert_header(header::VIA, value)
}

/// Tells the application which certificate the client has shown, and takes out what a client says of itself.
pub(crate) fn identify_client(
    request: &mut RequestHeader,
    identity: Option<&Identity>,
) -> pingora::Result<()> {
    request.remove_header(&CLIENT_SUBJECT);
    request.remove_header(&CLIENT_FINGERPRINT);
    let Some(identity) = identity else { return Ok(()) };
    request.insert_header(CLIENT_SUBJECT, identity.subject.clone())?;
    request.insert_header(CLIENT_FINGERPRINT, identity.fingerprint.clone())
}

/// HTTP/2 may spread cookies over several fields, HTTP/1 has one (RFC 9113 §8.2.3).
fn join_cookies(request: &mut RequestHeader) -> pingora::Result<()> {
    if request.headers.get_all(header::COOKIE).iter().nth(1).is_none() {
        return Ok(());
    }
    let values: Vec<_> = request.headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    let joined = values.join(&b"; "[..]);
    request.insert_header(header::COOKIE, joined)
}

/// Makes a VM's response this hop's own.
pub(crate) fn forward_response(response: &mut ResponseHeader) -> pingora::Result<()> {
    if response.status != http::StatusCode::SWITCHING_PROTOCOLS {
        remove_named_by_connection(response);
        response.remove_header(&header::CONNECTION);
        response.remove_header(&header::UPGRADE);
    }
    for name in &HOP_BY_HOP {
        response.remove_header(name);
    }
    if response.headers.contains_key(header::VIA) {
        let value = joined(&response.headers, &header::VIA, via_weir(response.version));
        return response.insert_header(header::VIA, value);
    }
    let via = if response.version == Version::HTTP_2 { "2 weir" } else { "1.1 weir" };
    response.insert_header(header::VIA, HeaderValue::from_static(via))
}

fn remove_named_by_connection(response: &mut ResponseHeader) {
    let framing = |name: &HeaderName| *name == header::CONTENT_LENGTH || *name == header::TRANSFER_ENCODING;
    let named: Vec<HeaderName> = response
        .headers
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
        .filter(|name| !framing(name))
        .collect();
    for name in &named {
        response.remove_header(name);
    }
}

/// All values of a field in order, and one more, as one value.
fn joined(headers: &HeaderMap, name: &HeaderName, last: &[u8]) -> HeaderValue {
    let mut list = Vec::with_capacity(64);
    for value in headers.get_all(name) {
        list.extend_from_slice(value.as_bytes());
        list.extend_from_slice(b", ");
    }
    list.extend_from_slice(last);
    HeaderValue::from_bytes(&list).expect("header values joined by commas make a header value")
}

fn via_weir(version: Version) -> &'static [u8] {
    match version {
        Version::HTTP_10 => b"1.0 weir",
        Version::HTTP_2 => b"2 weir",
        _ => b"1.1 weir",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(fields: &[(&'static str, &str)]) -> RequestHeader {
        let mut request = RequestHeader::build("GET", b"/", None).unwrap();
        for (name, value) in fields {
            request.append_header(*name, *value).unwrap();
        }
        request
    }

    fn fields(headers: &HeaderMap) -> Vec<(String, String)> {
        let text = |value: &HeaderValue| value.to_str().unwrap().to_owned();
        let mut fields: Vec<_> =
            headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect();
        fields.sort();
        fields
    }

    #[test]
    fn what_a_client_claims_stands_before_what_is_known() {
        let mut request = request(&[
            ("host", "a.example"),
            ("x-forwarded-for", "6.6.6.6"),
            ("x-forwarded-for", "7.7.7.7, 8.8.8.8"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "evil.example"),
            ("forwarded", "for=6.6.6.6"),
            ("via", "1.0 other"),
        ]);
        forward_request(&mut request, Some("::ffff:192.0.2.1".parse().unwrap()), "http", Version::HTTP_11)
            .unwrap();
        let expected = [
            ("host", "a.example"),
            ("via", "1.0 other, 1.1 weir"),
            ("x-forwarded-for", "6.6.6.6, 7.7.7.7, 8.8.8.8, 192.0.2.1"),
            ("x-forwarded-host", "a.example"),
            ("x-forwarded-proto", "http"),
        ];
        assert_eq!(
            fields(&request.headers),
            expected.map(|(name, value)| (name.to_owned(), value.to_owned()))
        );
    }

    #[test]
    fn a_request_without_a_host_forwards_none() {
        let mut request = request(&[("x-forwarded-host", "evil.example")]);
        forward_request(&mut request, None, "https", Version::HTTP_10).unwrap();
        assert!(!request.headers.contains_key("x-forwarded-host"));
        assert!(!request.headers.contains_key("x-forwarded-for"));
        assert_eq!(request.headers["x-forwarded-proto"], "https");
        assert_eq!(request.headers["via"], "1.0 weir");
    }

    #[test]
    fn a_response_loses_what_is_for_one_hop() {
        let mut response = ResponseHeader::build(200, None).unwrap();
        for (name, value) in [
            ("connection", "x-hop, Keep-Alive,, bad name, content-length"),
            ("connection", "x-other"),
            ("x-hop", "1"),
            ("x-other", "1"),
            ("x-kept", "1"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "close"),
            ("proxy-authenticate", "Basic"),
            ("te", "trailers"),
            ("trailer", "x-sum"),
            ("upgrade", "h2c"),
            ("content-length", "3"),
            ("via", "1.1 inner"),
        ] {
            response.append_header(name, value).unwrap();
        }
        forward_response(&mut response).unwrap();
        let expected = [("content-length", "3"), ("via", "1.1 inner, 1.1 weir"), ("x-kept", "1")];
        assert_eq!(
            fields(&response.headers),
            expected.map(|(name, value)| (name.to_owned(), value.to_owned()))
        );
    }

    #[test]
    fn a_switch_of_protocols_keeps_its_handshake() {
        let mut response = ResponseHeader::build(101, None).unwrap();
        response.append_header("connection", "Upgrade").unwrap();
        response.append_header("upgrade", "websocket").unwrap();
        forward_response(&mut response).unwrap();
        assert_eq!(response.headers["connection"], "Upgrade");
        assert_eq!(response.headers["upgrade"], "websocket");
    }
}
