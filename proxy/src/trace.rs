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

/// 8 bytes in lower-case hexadecimal: a part of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SpanId([u8; 16]);

/// What a well-formed `traceparent` says: whose part a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Parent {
    pub(crate) trace: TraceId,
    pub(crate) span: SpanId,
    flags: u8,
}

/// Of the flags: the trace is recorded.
const SAMPLED: u8 = 1;
/// The trace's id is random (Trace Context Level 2); to be kept by those who take part.
const RANDOM: u8 = 2;

impl Parent {
    /// What a request says; nothing if it says several things.
    pub(crate) fn of(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(TRACEPARENT).iter();
        let (only, None) = (values.next()?, values.next()) else { return None };
        Self::parse(only.as_bytes())
    }

    /// What a `traceparent` says, if it is well-formed.
    fn parse(traceparent: &[u8]) -> Option<Self> {
        let mut fields = traceparent.split(|byte| *byte == b'-');
        let mut field = |length| fields.next().filter(|field| field.len() == length && is_lower_hex(field));
        let (version, trace, span, flags) = (field(2)?, field(32)?, field(16)?, field(2)?);
        // Later versions may have more fields; version 00 may not.
        let complete = version != b"00" || fields.next().is_none();
        let none_void = version != b"ff" && !is_zero(trace) && !is_zero(span);
        let flags = u8::from_str_radix(std::str::from_utf8(flags).ok()?, 16).ok()?;
        let parent =
            Self { trace: TraceId(trace.try_into().ok()?), span: SpanId(span.try_into().ok()?), flags };
        (complete && none_void).then_some(parent)
    }

    pub(crate) fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    pub(crate) fn is_random(&self) -> bool {
        self.flags & RANDOM != 0
    }
}

impl TraceId {
    /// A new trace, and the header that makes the application part of it: not sampled, since nothing records it.
    pub(crate) fn begin() -> (Self, HeaderValue) {
        // A zero would be void; the lowest bit costs nothing.
        let id = Self(hexadecimal(&format!("{:032x}", rand::random::<u128>() | 1)));
        (id, header(&id, &SpanId::random(), 0))
    }

    pub(crate) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("a trace id holds hexadecimal digits")
    }
}

impl SpanId {
    pub(crate) fn random() -> Self {
        Self(hexadecimal(&format!("{:016x}", rand::random::<u64>() | 1)))
    }

    pub(crate) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("a span id holds hexadecimal digits")
    }
}

/// The header that makes an application part of a span that is recorded.
pub(crate) fn traceparent(trace: &TraceId, span: &SpanId, is_random: bool) -> HeaderValue {
    header(trace, span, if is_random { SAMPLED | RANDOM } else { SAMPLED })
}

fn header(trace: &TraceId, span: &SpanId, flags: u8) -> HeaderValue {
    let text = format!("00-{}-{}-{flags:02x}", trace.as_str(), span.as_str());
    HeaderValue::try_from(text).expect("hexadecimal digits and dashes make a header value")
}

fn hexadecimal<const N: usize>(text: &str) -> [u8; N] {
    text.as_bytes().try_into().expect("a number that is written with N digits has N of them")
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
        let parse = |text: &str| Parent::parse(text.as_bytes());
        let good = format!("00-{ID}-00f067aa0ba902b7-01");
        let parent = parse(&good).unwrap();
        assert_eq!((parent.trace.as_str(), parent.span.as_str()), (ID, "00f067aa0ba902b7"));
        let future = format!("01-{ID}-00f067aa0ba902b7-01-what-the-future");
        assert_eq!(parse(&future).unwrap().trace.as_str(), ID);
        for (flags, sampled, random) in
            [("00", false, false), ("01", true, false), ("02", false, true), ("ff", true, true)]
        {
            let parent = parse(&format!("00-{ID}-00f067aa0ba902b7-{flags}")).unwrap();
            assert_eq!((parent.is_sampled(), parent.is_random()), (sampled, random), "{flags}");
        }
        for bad in [
            format!("ff-{ID}-00f067aa0ba902b7-01"),
            format!("{good}-more"),
            good.to_uppercase(),
            format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32)),
            format!("00-{ID}-{}-01", "0".repeat(16)),
            format!("00-{ID}-00f067aa0ba902b7"),
            format!("00-{ID}-00f067aa0ba902b7-+1"),
            String::new(),
        ] {
            assert_eq!(parse(&bad), None, "{bad}");
        }
    }

    #[test]
    fn a_begun_trace_is_well_formed() {
        let (id, header) = TraceId::begin();
        let parent = Parent::parse(header.as_bytes()).unwrap();
        assert_eq!((parent.trace, parent.is_sampled()), (id, false));
        assert_ne!(id, TraceId::begin().0);
    }

    #[test]
    fn a_span_that_is_recorded_is_sampled() {
        let (trace, span) = (TraceId::begin().0, SpanId::random());
        for is_random in [false, true] {
            let parent = Parent::parse(traceparent(&trace, &span, is_random).as_bytes()).unwrap();
            assert_eq!((parent.trace, parent.span, parent.is_sampled()), (trace, span, true));
            assert_eq!(parent.is_random(), is_random);
        }
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_strange(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = Parent::parse(&bytes);
        }
    }
}
