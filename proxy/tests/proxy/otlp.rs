//! What a collector is told of requests.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use weir_config::model::{Config, Otlp, Thousandths};

use crate::backend::Backend;
use crate::client::{ask, header};
use crate::site::{Site, config, ready};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

/// A collector, and all spans that it gets.
async fn collector() -> (Backend, Arc<Mutex<Vec<Value>>>) {
    let spans = Arc::<Mutex<Vec<Value>>>::default();
    let got = spans.clone();
    let backend = Backend::start(move |mut connection| {
        let got = got.clone();
        async move {
            while let Some((_, body)) = connection.request().await {
                let batch: Value = serde_json::from_slice(&body).unwrap();
                let spans = &batch["resourceSpans"][0]["scopeSpans"][0]["spans"];
                got.lock().unwrap().extend(spans.as_array().unwrap().iter().cloned());
                connection.answer(b"{}").await;
            }
        }
    })
    .await;
    (backend, spans)
}

fn exporting(to: &Backend, sample: u64, trusted: bool) -> Config {
    let mut config = config();
    if trusted {
        config.host.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    }
    config.otlp = Some(Otlp {
        endpoint: format!("http://{}/v1/traces", to.address),
        sample: Thousandths(sample),
        headers: Vec::new(),
        timeout: Duration::from_secs(5),
        ca: None,
        service_name: "weir".to_owned(),
    });
    config
}

/// The header that a VM sees of this request.
async fn seen(site: &Site, path: &str, headers: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nhost: a.example:81\r\nconnection: close\r\n{headers}\r\n");
    ask(site.address, &request).await.text().to_owned()
}

fn attribute<'a>(span: &'a Value, key: &str) -> &'a Value {
    let mut attributes = span["attributes"].as_array().unwrap().iter();
    attributes.find(|one| one["key"] == key).map_or(&Value::Null, |one| &one["value"])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_span_is_part_of_the_client_s_and_the_vm_s_is_part_of_it() {
    let (backend, (collector, spans)) = (Backend::echo("vm").await, collector().await);
    let site = Site::start(exporting(&collector, 1000, false), ready(backend.address)).await;
    let given = format!("traceparent: 00-{TRACE}-{PARENT}-02\r\ntracestate: a=1\r\nuser-agent: \"x\"\r\n");
    let head = seen(&site, "/a?secret", &given).await;
    let begun = seen(&site, "/b", "tracestate: a=1\r\n").await;
    site.end().await;
    let spans = spans.lock().unwrap();
    let of =
        |path: &str| spans.iter().find(|span| attribute(span, "url.path")["stringValue"] == path).unwrap();
    let span = of("/a");
    let id = span["spanId"].as_str().unwrap();
    assert_eq!(header(&head, "traceparent"), Some(format!("00-{TRACE}-{id}-03").as_str()));
    assert_eq!(header(&head, "tracestate"), Some("a=1"));
    assert_eq!((&span["traceId"], &span["parentSpanId"]), (&TRACE.into(), &PARENT.into()));
    assert_eq!((&span["name"], &span["kind"]), (&"GET /".into(), &2.into()));
    for (key, value) in [
        ("http.request.method", "GET"),
        ("url.scheme", "http"),
        ("server.address", "a.example"),
        ("network.protocol.version", "1.1"),
        ("client.address", "127.0.0.1"),
        ("user_agent.original", "\"x\""),
        ("http.route", "/"),
        ("weir.route", "all"),
        ("weir.pool", "p"),
        ("weir.start", "cold"),
    ] {
        assert_eq!(attribute(span, key)["stringValue"], value, "{key}");
    }
    for (key, value) in [("http.response.status_code", "200"), ("server.port", "81")] {
        assert_eq!(attribute(span, key)["intValue"], value, "{key}");
    }
    assert!(!span.to_string().contains("secret"), "{span}");
    // The first request has waited for its VM.
    let wakes: Vec<_> = spans.iter().filter(|span| span["name"] == "wake").collect();
    assert_eq!((wakes.len(), wakes[0]["parentSpanId"].as_str()), (1, Some(id)));
    let begun_span = of("/b");
    let [trace, id] = ["traceId", "spanId"].map(|key| begun_span[key].as_str().unwrap());
    assert_eq!(header(&begun, "traceparent"), Some(format!("00-{trace}-{id}-01").as_str()));
    assert_eq!((header(&begun, "tracestate"), &begun_span["parentSpanId"]), (None, &Value::Null));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_trusted_proxies_decide_what_is_sampled() {
    for trusted in [false, true] {
        let (backend, (collector, spans)) = (Backend::echo("vm").await, collector().await);
        // Chance alone has nearly none of them, or all.
        let sample = if trusted { 1 } else { 1000 };
        let site = Site::start(exporting(&collector, sample, trusted), ready(backend.address)).await;
        let given = |flags: &str| format!("00-{TRACE}-{PARENT}-{flags}");
        for flags in ["00", "01"] {
            let head = seen(&site, &format!("/{flags}"), &format!("traceparent: {}\r\n", given(flags))).await;
            let is_sampled = !trusted || flags == "01";
            assert_eq!(header(&head, "traceparent") != Some(&given(flags)), is_sampled, "{flags} {trusted}");
        }
        site.end().await;
        let spans = spans.lock().unwrap();
        let paths: Vec<_> =
            spans.iter().filter_map(|span| attribute(span, "url.path")["stringValue"].as_str()).collect();
        assert_eq!(paths, if trusted { &["/01"][..] } else { &["/00", "/01"] });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_an_error_with_a_name() {
    let (collector, spans) = collector().await;
    // Nobody listens there.
    let site = Site::start(exporting(&collector, 1000, false), ready("127.0.0.1:1".parse().unwrap())).await;
    let answered = ask(site.address, "ODD / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
    let word = answered.header("weir-error").unwrap().to_owned();
    site.end().await;
    let spans = spans.lock().unwrap();
    let span = spans.iter().find(|span| span["kind"] == 2).unwrap();
    assert_eq!((&span["name"], &span["status"]["code"]), (&"HTTP /".into(), &2.into()));
    assert_eq!(attribute(span, "http.request.method")["stringValue"], "_OTHER");
    assert_eq!(attribute(span, "http.request.method_original")["stringValue"], "ODD");
    assert_eq!(attribute(span, "error.type")["stringValue"], word.as_str());
}
