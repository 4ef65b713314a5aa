//! What pages of other origins may do (Fetch standard, <https://fetch.spec.whatwg.org/#http-cors-protocol>).
//!
//! Where a route has a policy, it is the only one: what a VM says of it is taken out, so that the two cannot contradict
//! each other. A browser's question before a request is answered by weir and wakes no pool; an origin that may not is
//! answered, too, without leave, as the standard has it.

use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use pingora::http::{RequestHeader, ResponseHeader};
use weir_config::model::{self, Origins};

/// Fields that only the policy sets.
const POLICY: [HeaderName; 6] = [
    header::ACCESS_CONTROL_ALLOW_ORIGIN,
    header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
    header::ACCESS_CONTROL_ALLOW_METHODS,
    header::ACCESS_CONTROL_ALLOW_HEADERS,
    header::ACCESS_CONTROL_EXPOSE_HEADERS,
    header::ACCESS_CONTROL_MAX_AGE,
];

/// A policy, ready for use.
#[derive(Debug)]
pub(super) struct Cors {
    origins: Origins,
    credentials: bool,
    methods: HeaderValue,
    /// `None`: no field that needs leave.
    headers: Option<HeaderValue>,
    expose_headers: Option<HeaderValue>,
    max_age: HeaderValue,
}

impl Cors {
    pub(super) fn new(cors: &model::Cors) -> Self {
        let names =
            |names: &[HeaderName]| (!names.is_empty()).then(|| list(names.iter().map(HeaderName::as_str)));
        Self {
            origins: cors.origins.clone(),
            credentials: cors.credentials,
            methods: list(cors.methods.iter().map(Method::as_str)),
            headers: names(&cors.headers),
            expose_headers: names(&cors.expose_headers),
            max_age: cors.max_age.as_secs().into(),
        }
    }

    /// The answer to a browser's question, if the request is one.
    pub(super) fn preflight(&self, request: &RequestHeader) -> pingora::Result<Option<Box<ResponseHeader>>> {
        let asks = request.method == Method::OPTIONS
            && request.headers.contains_key(header::ORIGIN)
            && request.headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
        if !asks {
            return Ok(None);
        }
        let mut answer = ResponseHeader::build(204, Some(8))?;
        if self.allow_origin(&request.headers, &mut answer)? {
            answer.insert_header(header::ACCESS_CONTROL_ALLOW_METHODS, self.methods.clone())?;
            answer.insert_header(header::ACCESS_CONTROL_MAX_AGE, self.max_age.clone())?;
            if let Some(headers) = &self.headers {
                answer.insert_header(header::ACCESS_CONTROL_ALLOW_HEADERS, headers.clone())?;
            }
        }
        Ok(Some(Box::new(answer)))
    }

    /// Makes an answer to `request` say what this policy says.
    pub(super) fn apply(&self, request: &HeaderMap, answer: &mut ResponseHeader) -> pingora::Result<()> {
        for name in &POLICY {
            answer.remove_header(name);
        }
        if self.allow_origin(request, answer)?
            && let Some(exposed) = &self.expose_headers
        {
            answer.insert_header(header::ACCESS_CONTROL_EXPOSE_HEADERS, exposed.clone())?;
        }
        Ok(())
    }

    /// Whether the request comes from a page that may.
    fn allow_origin(&self, request: &HeaderMap, answer: &mut ResponseHeader) -> pingora::Result<bool> {
        let Origins::These(origins) = &self.origins else {
            answer.insert_header(header::ACCESS_CONTROL_ALLOW_ORIGIN, "*")?;
            return Ok(true);
        };
        // A cache must not give one origin's answer to another.
        answer.append_header(header::VARY, "origin")?;
        let mut given = request.get_all(header::ORIGIN).iter();
        let (Some(origin), None) = (given.next(), given.next()) else { return Ok(false) };
        if !origins.iter().any(|known| known.as_bytes() == origin.as_bytes()) {
            return Ok(false);
        }
        answer.insert_header(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone())?;
        if self.credentials {
            answer.insert_header(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, "true")?;
        }
        Ok(true)
    }
}

fn list<'a>(tokens: impl Iterator<Item = &'a str>) -> HeaderValue {
    let tokens: Vec<_> = tokens.collect();
    HeaderValue::from_str(&tokens.join(", ")).expect("methods and names of fields are tokens")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cors(keys: &str) -> Cors {
        let text = format!(
            "[[listener]]\naddress = '127.0.0.1:0'\n[[route]]\nrespond = {{}}\n[route.cors]\n{keys}\n"
        );
        let config = weir_config::parse(&text, "t").unwrap_or_else(|errors| panic!("{errors}"));
        Cors::new(config.routes[0].cors.as_ref().unwrap())
    }

    fn request(method: &str, fields: &[(&'static str, &str)]) -> RequestHeader {
        let mut request = RequestHeader::build(method, b"/", None).unwrap();
        for (name, value) in fields {
            request.append_header(*name, *value).unwrap();
        }
        request
    }

    fn text(header: &ResponseHeader) -> Vec<String> {
        let field =
            |(name, value): (&HeaderName, &HeaderValue)| format!("{name}: {}", value.to_str().unwrap());
        let mut fields: Vec<_> = header.headers.iter().map(field).collect();
        fields.sort();
        fields
    }

    #[test]
    fn questions_are_answered() {
        let cors = cors(
            "origins = ['https://a.example']\nmethods = ['GET', 'PUT']\nheaders = ['x-a', 'x-b']\ncredentials = true\nmax_age = '1h'",
        );
        let ask =
            |origin| request("OPTIONS", &[("origin", origin), ("access-control-request-method", "PUT")]);
        let answer = cors.preflight(&ask("https://a.example")).unwrap().unwrap();
        let expected = [
            "access-control-allow-credentials: true",
            "access-control-allow-headers: x-a, x-b",
            "access-control-allow-methods: GET, PUT",
            "access-control-allow-origin: https://a.example",
            "access-control-max-age: 3600",
            "vary: origin",
        ];
        assert_eq!((answer.status.as_u16(), text(&answer)), (204, expected.map(str::to_owned).into()));
        for other in ["https://a.example.evil", "https://b.example", "null", "HTTPS://a.example"] {
            let answer = cors.preflight(&ask(other)).unwrap().unwrap();
            assert_eq!(text(&answer), ["vary: origin"], "{other}");
        }
        for no_question in [
            request("OPTIONS", &[("origin", "https://a.example")]),
            request("OPTIONS", &[("access-control-request-method", "PUT")]),
            request("GET", &[("origin", "https://a.example"), ("access-control-request-method", "PUT")]),
        ] {
            assert!(cors.preflight(&no_question).unwrap().is_none());
        }
    }

    #[test]
    fn answers_say_what_the_policy_says_and_nothing_else() {
        let vm = || {
            let mut answer = ResponseHeader::build(200, None).unwrap();
            answer.insert_header("access-control-allow-origin", "https://evil.example").unwrap();
            answer.insert_header("access-control-allow-credentials", "true").unwrap();
            answer.insert_header("vary", "accept").unwrap();
            answer
        };
        let named = cors("origins = ['https://a.example']\nexpose_headers = ['x-a']");
        let any = cors("origins = ['*']");
        for (cors, origins, expected) in [
            (
                &named,
                &["https://a.example"][..],
                &[
                    "access-control-allow-origin: https://a.example",
                    "access-control-expose-headers: x-a",
                    "vary: accept",
                    "vary: origin",
                ][..],
            ),
            (&named, &["https://evil.example"], &["vary: accept", "vary: origin"]),
            (&named, &["https://a.example", "https://a.example"], &["vary: accept", "vary: origin"]),
            (&named, &[], &["vary: accept", "vary: origin"]),
            (&any, &["https://b.example"], &["access-control-allow-origin: *", "vary: accept"]),
        ] {
            let fields: Vec<_> = origins.iter().map(|origin| ("origin", *origin)).collect();
            let mut answer = vm();
            cors.apply(&request("GET", &fields).headers, &mut answer).unwrap();
            assert_eq!(text(&answer), expected, "{origins:?}");
        }
    }
}
