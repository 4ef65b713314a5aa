//! Spans as OTLP's JSON has them: names of fields in lower camel case, ids in hexadecimal, 64-bit integers as text.

use std::borrow::Cow;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Serialize, Serializer};

/// Longest text of an attribute, bytes; clients write some of them.
const LONGEST_TEXT: usize = 1024;

/// `SPAN_KIND_INTERNAL` and `SPAN_KIND_SERVER`.
pub(super) const INTERNAL: u8 = 1;
pub(super) const SERVER: u8 = 2;

/// `STATUS_CODE_ERROR`.
const ERROR: u8 = 2;

/// Of a span's flags: sampled; it is known whether its parent is elsewhere; it is.
pub(super) const SAMPLED: u32 = 1;
pub(super) const KNOWS_REMOTE: u32 = 1 << 8;
pub(super) const IS_REMOTE: u32 = 1 << 9;

/// `opentelemetry.proto.trace.v1.Span`, as far as weir's have it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SpanText<'a> {
    pub(super) trace_id: &'a str,
    pub(super) span_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) parent_span_id: Option<&'a str>,
    pub(super) flags: u32,
    pub(super) name: &'a str,
    pub(super) kind: u8,
    #[serde(serialize_with = "nanoseconds")]
    pub(super) start_time_unix_nano: SystemTime,
    #[serde(serialize_with = "nanoseconds")]
    pub(super) end_time_unix_nano: SystemTime,
    pub(super) attributes: Attributes<'a>,
    pub(super) status: Status,
}

/// Whether it went wrong.
#[derive(Debug, Default, Serialize)]
pub(super) struct Status {
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<u8>,
}

/// What is known of a span, or of who sends it.
#[derive(Debug, Default, Serialize)]
#[serde(transparent)]
pub(super) struct Attributes<'a>(Vec<Attribute<'a>>);

#[derive(Debug, Serialize)]
struct Attribute<'a> {
    key: &'static str,
    value: Value<'a>,
}

#[derive(Debug, Serialize)]
enum Value<'a> {
    #[serde(rename = "stringValue")]
    Text(Cow<'a, str>),
    #[serde(rename = "intValue", serialize_with = "as_text")]
    Int(u64),
    #[serde(rename = "doubleValue")]
    Double(f64),
}

impl Status {
    pub(super) fn of(failed: bool) -> Self {
        Self { code: failed.then_some(ERROR) }
    }
}

impl<'a> Attributes<'a> {
    /// Its first [`LONGEST_TEXT`] bytes.
    pub(super) fn text(&mut self, key: &'static str, text: impl Into<Cow<'a, str>>) {
        let mut text = text.into();
        if text.len() > LONGEST_TEXT {
            let end = text.floor_char_boundary(LONGEST_TEXT);
            text = Cow::Owned(text[..end].to_owned());
        }
        self.0.push(Attribute { key, value: Value::Text(text) });
    }

    pub(super) fn int(&mut self, key: &'static str, value: u64) {
        self.0.push(Attribute { key, value: Value::Int(value) });
    }

    pub(super) fn double(&mut self, key: &'static str, value: f64) {
        self.0.push(Attribute { key, value: Value::Double(value) });
    }
}

fn as_text<S: Serializer>(value: &u64, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(value)
}

fn nanoseconds<S: Serializer>(at: &SystemTime, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(&at.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_nanos())
}

/// What stands around the spans of a batch: `opentelemetry.proto.collector.trace.v1.ExportTraceServiceRequest`.
#[derive(Debug)]
pub(super) struct Envelope(Vec<u8>);

impl Envelope {
    /// For spans that `service` sends.
    pub(super) fn new(service: &str) -> Self {
        let mut of_service = Attributes::default();
        of_service.text("service.name", service);
        of_service.text("service.version", env!("CARGO_PKG_VERSION"));
        let head = serde_json::json!({
            "resource": { "attributes": of_service },
            "scopeSpans": [{ "scope": { "name": "weir", "version": env!("CARGO_PKG_VERSION") } }],
        });
        // The last list is still to come, and is then the last field of what it is part of.
        let head = head.to_string();
        let open = head.strip_suffix("}]}").expect("an object ends with what its last field ends with");
        Self(format!("{{\"resourceSpans\":[{open},\"spans\":[").into_bytes())
    }

    /// The request for these spans.
    pub(super) fn around(&self, spans: &[Vec<u8>]) -> Vec<u8> {
        let mut request = self.0.clone();
        request.extend_from_slice(&spans.join(&b','));
        request.extend_from_slice(b"]}]}]}");
        request
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn read(text: &[u8]) -> Value {
        serde_json::from_slice(text).unwrap()
    }

    #[test]
    fn a_batch_is_what_the_protocol_says() {
        let envelope = Envelope::new("my \"edge\"");
        let batch = read(&envelope.around(&[b"{\"a\":1}".to_vec(), b"{\"b\":2}".to_vec()]));
        let version = env!("CARGO_PKG_VERSION");
        let attribute = |key: &str, value: &str| json!({ "key": key, "value": { "stringValue": value } });
        let resource = [attribute("service.name", "my \"edge\""), attribute("service.version", version)];
        let scope = json!({ "name": "weir", "version": version });
        let spans = json!([{ "scope": scope, "spans": [{ "a": 1 }, { "b": 2 }] }]);
        assert_eq!(
            batch,
            json!({ "resourceSpans": [{ "resource": { "attributes": resource }, "scopeSpans": spans }] })
        );
    }

    #[test]
    fn numbers_of_64_bits_are_text() {
        let mut attributes = Attributes::default();
        attributes.int("vm", u64::MAX);
        attributes.double("ms", 1.5);
        let span = SpanText {
            trace_id: "t",
            span_id: "s",
            parent_span_id: None,
            flags: SAMPLED,
            name: "n",
            kind: SERVER,
            start_time_unix_nano: UNIX_EPOCH + Duration::new(1_544_712_660, 7),
            end_time_unix_nano: UNIX_EPOCH - Duration::from_secs(1),
            attributes,
            status: Status::of(true),
        };
        let expected = json!({
            "traceId": "t", "spanId": "s", "flags": 1, "name": "n", "kind": 2,
            "startTimeUnixNano": "1544712660000000007", "endTimeUnixNano": "0",
            "attributes": [
                { "key": "vm", "value": { "intValue": "18446744073709551615" } },
                { "key": "ms", "value": { "doubleValue": 1.5 } },
            ],
            "status": { "code": 2 },
        });
        assert_eq!(serde_json::to_value(span).unwrap(), expected);
    }

    proptest! {
        #[test]
        fn texts_are_bounded_and_whole_characters(text in "\\PC{0,700}") {
            let mut attributes = Attributes::default();
            attributes.text("k", text.as_str());
            let written = serde_json::to_value(attributes).unwrap();
            let kept = written[0]["value"]["stringValue"].as_str().unwrap();
            prop_assert!(text.starts_with(kept) && kept.len() <= LONGEST_TEXT);
            prop_assert!(kept.len() + 4 > text.len().min(LONGEST_TEXT));
        }
    }
}
