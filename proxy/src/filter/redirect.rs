//! Where a redirect leads.
//!
//! A location is put together from literal text, which the configuration has checked to hold the authority, and parts of
//! the request. Those are the client's, so they are put into the form that they may have in a URI.

use http::{HeaderValue, StatusCode, header};
use pingora::http::{RequestHeader, ResponseHeader};
use weir_config::model::{Piece, Redirect};

use super::rewrite::escape_into;
use crate::answer::Refusal;
use crate::request::authority_and_target;
use crate::target;

/// A redirect, ready for use.
#[derive(Debug)]
pub(crate) struct Location {
    status: StatusCode,
    to: Box<[Piece]>,
}

impl Location {
    pub(super) fn new(redirect: &Redirect) -> Self {
        Self { status: redirect.status, to: redirect.to.clone().into() }
    }

    pub(super) fn header(
        &self,
        request: &RequestHeader,
    ) -> pingora::Result<Result<Box<ResponseHeader>, Refusal>> {
        let location = match self.of(request) {
            Ok(location) => location,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let mut header = ResponseHeader::build(self.status, Some(2))?;
        header.insert_header(header::LOCATION, location)?;
        header.insert_header(header::CONTENT_LENGTH, 0)?;
        Ok(Ok(Box::new(header)))
    }

    /// The location for a request; [`Refusal::BadRequest`] if it names no host where one is needed.
    fn of(&self, request: &RequestHeader) -> Result<HeaderValue, Refusal> {
        let (authority, target) = authority_and_target(request);
        let query_at = target.iter().position(|byte| *byte == b'?').unwrap_or(target.len());
        let (path, query) = target.split_at(query_at);
        let mut location = Vec::with_capacity(128);
        for piece in &self.to {
            match piece {
                Piece::Text(text) => location.extend_from_slice(text.as_bytes()),
                Piece::Host => match target::host(authority.unwrap_or_default()) {
                    Ok(host) if !host.is_empty() => location.extend_from_slice(host.as_bytes()),
                    _ => return Err(Refusal::BadRequest),
                },
                Piece::Path => escape_into(&mut location, path),
                Piece::Query => escape_into(&mut location, query),
            }
        }
        HeaderValue::from_bytes(&location).map_err(|_| Refusal::BadRequest)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn redirect(to: &str) -> Location {
        let text =
            format!("[[listener]]\naddress = '127.0.0.1:0'\n[[route]]\nredirect = {{ to = '{to}' }}\n");
        let config = weir_config::parse(&text, "t").unwrap();
        let weir_config::Destination::Redirect(redirect) = &config.routes[0].to else { panic!("{to}") };
        Location::new(redirect)
    }

    fn request(host: Option<&str>, target: &[u8]) -> RequestHeader {
        let mut request = RequestHeader::build("GET", target, None).unwrap();
        if let Some(host) = host {
            request.insert_header("host", host).unwrap();
        }
        request
    }

    #[test]
    fn pieces_become_a_location() {
        for (to, target, expected) in [
            ("https://{host}{path}{query}", "/a/b?c=d&e", "https://a.example/a/b?c=d&e"),
            ("https://{host}{path}{query}", "/", "https://a.example/"),
            ("https://{host}{path}", "/a?b", "https://a.example/a"),
            ("https://{host}{path}", "//evil.example/", "https://a.example//evil.example/"),
            ("https://other.example{path}", "/@evil.example", "https://other.example/@evil.example"),
            ("/new{path}", "//evil.example", "/new//evil.example"),
            ("/new", "/old?x", "/new"),
            ("https://b.example/?from={path}", "/x", "https://b.example/?from=/x"),
            ("https://{host}{path}", "/\\evil", "https://a.example/%5Cevil"),
        ] {
            let location = redirect(to).of(&request(Some("A.example:8080"), target.as_bytes())).unwrap();
            assert_eq!(location, expected, "{to}");
        }
    }

    #[test]
    fn a_request_without_a_host_has_no_location_with_one() {
        let refused = redirect("https://{host}/").of(&request(None, b"/"));
        assert_eq!(refused, Err(Refusal::BadRequest));
        assert_eq!(redirect("https://a/").of(&request(None, b"/")).unwrap(), "https://a/");
    }

    proptest! {
        // Whatever a client asks for, the authority is the configuration's, and the line ends where it should.
        #[test]
        fn no_target_changes_the_authority(rest in proptest::collection::vec(prop_oneof![any::<u8>(), 33..=126_u8], 0..16)) {
            let target = [b"/", &rest[..]].concat();
            // pingora, and the route's choice, refuse the others.
            let Ok(request) = RequestHeader::build("GET", &target, None) else { return Ok(()) };
            prop_assume!(target::path(&target).is_ok());
            let location = redirect("https://safe.example{path}{query}").of(&request).unwrap();
            let text = location.to_str().unwrap();
            let uri: http::Uri = text.parse().unwrap();
            prop_assert_eq!(uri.authority().unwrap().as_str(), "safe.example");
            prop_assert!(text.bytes().all(|byte| byte.is_ascii_graphic()));
        }
    }
}
