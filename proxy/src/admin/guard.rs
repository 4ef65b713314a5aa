//! Who may use the API: nobody whom a browser was made to speak for.
//!
//! A page from anywhere can have a browser on this machine send requests to the administration address. It cannot read
//! the answers, unless its name is made to resolve to that address (DNS rebinding): then the `Host` header is that name,
//! so only addresses and `localhost` are accepted there. And it cannot set a header of its own without asking first
//! (Fetch standard, CORS-preflight), which is never answered with yes: so whatever changes something demands one.

use std::net::IpAddr;

use axum::extract::Request;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::answer;

/// The header that whatever changes something needs, with any value.
pub const HEADER: &str = "x-weir";

/// Lets a request through, or answers it.
pub(super) async fn guard(request: Request, next: Next) -> Response {
    match refusal(request.method(), request.headers()) {
        Some(why) => answer::error(StatusCode::FORBIDDEN, None, why).into_response(),
        None => next.run(request).await,
    }
}

fn refusal(method: &Method, headers: &HeaderMap) -> Option<&'static str> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = hosts.next().and_then(|host| host.to_str().ok());
    if hosts.next().is_some() || !host.is_some_and(is_local) {
        return Some("the host header must be an ip address or localhost");
    }
    let changes = !matches!(*method, Method::GET | Method::HEAD);
    (changes && !headers.contains_key(HEADER)).then_some("the header x-weir is missing")
}

/// Whether a `Host` header (RFC 9110, section 7.2) cannot be a name that somebody else makes resolve to this address.
fn is_local(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, port)) if is_port(port) => address,
            _ => return false,
        },
        None => match host.split_once(':') {
            Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
            Some(_) => return false,
            None => host,
        },
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

/// Nothing, or a colon and digits.
fn is_port(text: &str) -> bool {
    text.is_empty()
        || text.strip_prefix(':').is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_and_localhost_are_local() {
        for host in
            ["127.0.0.1", "127.0.0.1:9180", "10.0.0.1:1", "[::1]", "[::1]:9180", "LocalHost:80", "127.0.0.1:"]
        {
            assert!(is_local(host), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "evil.example:9180",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "localhost:80:80",
            "[::1].evil.example",
            "[::1",
            "[evil.example]",
            "::1",
            "0x7f.1",
            "user@127.0.0.1",
            " 127.0.0.1",
        ] {
            assert!(!is_local(host), "{host}");
        }
    }

    #[test]
    fn what_changes_something_needs_the_header_and_every_request_one_host() {
        let headers = |pairs: &[(&'static str, &'static str)]| {
            pairs.iter().fold(HeaderMap::new(), |mut headers, (name, value)| {
                headers.append(*name, value.parse().unwrap());
                headers
            })
        };
        let local = ("host", "127.0.0.1:9180");
        assert_eq!(refusal(&Method::GET, &headers(&[local])), None);
        assert_eq!(refusal(&Method::POST, &headers(&[local, ("x-weir", "1")])), None);
        for method in [Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS, Method::PATCH] {
            assert!(refusal(&method, &headers(&[local])).is_some(), "{method}");
        }
        assert!(refusal(&Method::GET, &headers(&[])).is_some());
        assert!(refusal(&Method::GET, &headers(&[local, ("host", "evil.example")])).is_some());
    }
}
