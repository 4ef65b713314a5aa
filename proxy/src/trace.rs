//! W3C trace context (https://www.w3.org/TR/trace-context/): a request that belongs to no trace begins one, so that the
//! access log's line and what the application logs can always be joined.

use http::{HeaderMap, HeaderValue};

/// The header's name.
pub(crate) const TRACEPARENT: &str = "traceparent";

/// What tracing systems add to it; it belongs to the trace of the request's `traceparent`, and to no other.
pub(crate) const TRACESTATE: &str = "tracestate";

/// 16 bytes in lower-case hexadecimal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TraceId([u8; 32]);

impl TraceId {
    /// The trace that a request belongs to; none if it names several.
    pub(crate) fn of(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(TRACEPARENT).iter();
        let (only, None) = (values.next()?, values.next()) else { return None };
        Self::parse(only.as_bytes())
    }

    /// The trace that a `traceparent` names, if it is well-formed.
    pub(crate) fn parse(traceparent: &[u8]) -> Option<Self> {
        let mut fields = traceparent.split(|byte| *byte == b'-');
        let mut field = |length| fields.next().filter(|field| field.len() == length && is_lower_hex(field));
        let (version, trace, parent, _flags) = (field(2)?, field(32)?, field(16)?, field(2)?);
        // Later versions may have more fields; version 00 may not.
        let complete = version != b"00" || fields.next().is_none();
        let none_void = version != b"ff" && !is_zero(trace) && !is_zero(parent);
        (complete && none_void).then_some(Self(trace.try_into().ok()?))
    }

    /// A new trace, and the header that makes the application part of it: not sampled, since nothing records it.
    pub(crate) fn begin() -> (Self, HeaderValue) {
        // A zero would be void; the lowest bit costs nothing.
        let (trace, parent) = (rand::random::<u128>() | 1, rand::random::<u64>() | 1);
        let text = format!("00-{trace:032x}-{parent:016x}-00");
        let mut id = [0; 32];
        id.copy_from_slice(&text.as_bytes()[3..35]);
        let header = HeaderValue::try_from(text).expect("hexadecimal digits and dashes make a header value");
        (Self(id), header)
    }

    pub(crate) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("a trace id holds hexadecimal digits")
    }
}

fn is_lower_hex(field: &[u8]) -> bool {
    field.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn is_zero(field: &[u8]) -> bool {
    field.iter().all(|byte| *byte == b'0')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    #[test]
    fn the_specification_s_examples() {
        let parse = |text: &str| TraceId::parse(text.as_bytes());
        let good = format!("00-{ID}-00f067aa0ba902b7-01");
        assert_eq!(parse(&good).unwrap().as_str(), ID);
        assert_eq!(parse(&format!("01-{ID}-00f067aa0ba902b7-01-what-the-future")).unwrap().as_str(), ID);
        for bad in [
            format!("ff-{ID}-00f067aa0ba902b7-01"),
            format!("{good}-more"),
            good.to_uppercase(),
            format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32)),
            format!("00-{ID}-{}-01", "0".repeat(16)),
            format!("00-{ID}-00f067aa0ba902b7"),
            String::new(),
        ] {
            assert_eq!(parse(&bad), None, "{bad}");
        }
    }

    #[test]
    fn a_begun_trace_is_well_formed() {
        let (id, header) = TraceId::begin();
        assert_eq!(TraceId::parse(header.as_bytes()), Some(id));
        assert_ne!(id, TraceId::begin().0);
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_strange(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = TraceId::parse(&bytes);
        }
    }
}
