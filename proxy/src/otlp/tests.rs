//! Spans on their way to a collector, or not.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use prometheus::Registry;
use weir_config::model::{Config, Otlp as OtlpConfig, Thousandths};
use weir_pool::OwnNetwork;

use super::*;
use crate::testing::config;

/// What a collector got: the request's head, and its body.
type Posted = (String, serde_json::Value);

/// Gives each request the next of these answers, and the last one from then on; a connection for each.
fn collector(answers: &'static [&'static str]) -> (SocketAddr, mpsc::Receiver<Posted>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, posted) = mpsc::channel();
    std::thread::spawn(move || {
        for (index, stream) in listener.incoming().enumerate() {
            let mut stream = stream.unwrap();
            let (mut request, mut byte) = (Vec::new(), [0]);
            while !request.ends_with(b"\r\n\r\n") {
                stream.read_exact(&mut byte).unwrap();
                request.push(byte[0]);
            }
            let head = String::from_utf8(request).unwrap();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
            let mut body = vec![0; length.parse().unwrap()];
            stream.read_exact(&mut body).unwrap();
            let answer = answers[index.min(answers.len() - 1)];
            write!(stream, "HTTP/1.1 {answer}\r\nconnection: close\r\n\r\n").unwrap();
            // The test may have seen enough.
            let _ = sender.send((head, serde_json::from_slice(&body).unwrap()));
        }
    });
    (address, posted)
}

fn exporting(to: SocketAddr) -> Config {
    let otlp = OtlpConfig {
        endpoint: format!("http://{to}/v1/traces"),
        sample: Thousandths(1000),
        headers: vec![("authorization".parse().unwrap(), "Bearer x".parse().unwrap())],
        timeout: Duration::from_secs(5),
        ca: None,
        service_name: "edge".to_owned(),
    };
    Config { otlp: Some(otlp), ..config() }
}

fn start(config: &Config) -> (Otlp, OtlpMetrics) {
    let metrics = OtlpMetrics::register(&Registry::new()).unwrap();
    let started = Otlp::start(config, Arc::new(OwnNetwork), metrics.clone()).unwrap();
    (started.unwrap(), metrics)
}

fn spans(posted: &Posted) -> &Vec<serde_json::Value> {
    posted.1["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().unwrap()
}

const PATIENCE: Duration = Duration::from_secs(9);

#[test]
fn what_waits_is_sent_at_the_end() {
    let (address, posted) = collector(&["200 OK"]);
    let (otlp, metrics) = start(&exporting(address));
    let left = otlp.spans();
    // More than one batch.
    for number in 0..700 {
        left.leave(format!("{{\"n\":{number}}}").into_bytes());
    }
    otlp.finish();
    let posted: Vec<_> = posted.try_iter().collect();
    let (head, _) = &posted[0];
    assert!(head.starts_with("POST /v1/traces HTTP/1.1\r\n"), "{head}");
    for field in ["content-type: application/json", "authorization: Bearer x", &format!("host: {address}")] {
        assert!(head.contains(&format!("\r\n{field}\r\n")), "{head}");
    }
    let numbers: Vec<_> = posted.iter().flat_map(spans).map(|span| span["n"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (0..700).collect::<Vec<_>>());
    assert_eq!(metrics.counts(), [700, 0, 0]);
    // Nobody is there any more.
    left.leave(b"{}".to_vec());
    assert_eq!(metrics.counts(), [700, 0, 1]);
}

#[test]
fn a_collector_that_is_busy_is_asked_again() {
    let (address, posted) = collector(&["503 Service Unavailable", "200 OK"]);
    let (otlp, metrics) = start(&exporting(address));
    otlp.spans().leave(b"{\"n\":1}".to_vec());
    let first = posted.recv_timeout(PATIENCE).unwrap();
    let second = posted.recv_timeout(PATIENCE).unwrap();
    assert_eq!(first.1, second.1);
    otlp.finish();
    assert_eq!(metrics.counts(), [1, 0, 0]);
}

#[test]
fn what_is_refused_is_not_sent_again() {
    let (address, posted) = collector(&["400 Bad Request"]);
    let (otlp, metrics) = start(&exporting(address));
    otlp.spans().leave(b"{\"n\":1}".to_vec());
    posted.recv_timeout(PATIENCE).unwrap();
    otlp.finish();
    assert_eq!(posted.try_iter().count(), 0);
    assert_eq!(metrics.counts(), [0, 1, 0]);
}

#[test]
fn a_collector_that_is_down_costs_spans_and_no_time() {
    // Nobody listens there any more.
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (otlp, metrics) = start(&exporting(address));
    let left = otlp.spans();
    // The thread holds one batch at most beside those that wait.
    let surplus = 2 * (WAITING_MAX + 512);
    for _ in 0..surplus {
        left.leave(b"{}".to_vec());
    }
    let [sent, _, dropped] = metrics.counts();
    assert!(sent == 0 && dropped > 0, "{dropped}");
    otlp.finish();
    let [sent, failed, dropped] = metrics.counts();
    assert_eq!((sent, failed + dropped), (0, surplus as u64));
}

#[test]
fn without_a_collector_there_is_nothing() {
    let metrics = OtlpMetrics::register(&Registry::new()).unwrap();
    assert!(Otlp::start(&config(), Arc::new(OwnNetwork), metrics).unwrap().is_none());
}
