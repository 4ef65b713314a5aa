//! How long whole requests, tunnels and idle connections may take.

use std::time::Duration;

use weir_config::model::Patience;

use crate::backend::Backend;
use crate::client::{Client, ask, get};
use crate::frames::{END_HEADERS, END_STREAM, Frames, HEADERS, block, frame, pseudo};
use crate::http2::knowing;
use crate::site::{Site, line, ready, silent};
use crate::slow_bodies::{at_rest, patient, too_slow};

const LIMIT: Duration = Duration::from_millis(300);

fn timed() -> weir_config::model::Config {
    patient(|patience| patience.timeout = Some(LIMIT))
}

/// `/silent` is not answered, `/endless` without end.
async fn slow() -> Backend {
    Backend::start(|mut connection| async move {
        while let Some((head, _)) = connection.request().await {
            if head.contains(" /silent ") {
                while connection.some().await.is_some() {}
                return;
            }
            if !head.contains(" /endless ") {
                connection.answer(b"quick").await;
                continue;
            }
            connection.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
            while connection.send("1\r\nx\r\n").await {
                tokio::time::sleep(LIMIT / 30).await;
            }
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_does_not_come_in_time_is_504() {
    let backend = slow().await;
    let site = Site::start(timed(), ready(backend.address)).await;
    let response = get(site.address, "/silent").await;
    assert_eq!((response.status(), response.header("weir-error")), (504, Some("timeout")));
    // Over HTTP/2, with a body over a bridge.
    let mut client = Frames::connect(site.address).await;
    client.send(&frame(HEADERS, END_HEADERS, 1, &block(&pseudo("POST", "/silent")))).await;
    client.send(&frame(0, END_STREAM, 1, b"x")).await;
    assert_eq!(client.outcome(1).await, (Some(0), b"the request took too long\n".to_vec()));
    assert_eq!(get(site.address, "/quick").await.text(), "quick");
    at_rest(&site).await;
    assert_eq!(too_slow(&site, "timeout"), Some(2.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_wait_for_a_vm_counts() {
    let backend = slow().await;
    let site = Site::start(timed(), silent(backend.address)).await;
    let response = get(site.address, "/quick").await;
    assert_eq!((response.status(), response.header("weir-error")), (504, Some("timeout")));
    assert_eq!(site.pool().queued(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_goes_on_for_too_long_is_cut() {
    let backend = slow().await;
    let site = Site::start(timed(), ready(backend.address)).await;
    let mut client = Client::connect(site.address).await;
    client.send("GET /endless HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert!(client.head().await.starts_with("HTTP/1.1 200 "));
    assert!(!client.exactly(usize::MAX).await.1);
    at_rest(&site).await;
    drop(client);
    let (_, log) = site.end().await;
    let cut = line(&log, "/endless");
    assert_eq!((&cut["status"], &cut["error"]), (&200.into(), &"timeout".into()));
}

const UPGRADE: &str = "GET /socket HTTP/1.1\r\nhost: a\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n";

async fn tunnels() -> Backend {
    Backend::start(|mut connection| async move {
        connection.head().await;
        let switch = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
        connection.send(switch).await;
        while let Some(bytes) = connection.some().await {
            connection.send(bytes).await;
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_has_its_own_limit_and_not_the_request_s() {
    let backend = tunnels().await;
    let change = |patience: &mut Patience| {
        (patience.timeout, patience.body_timeout) = (Some(LIMIT), LIMIT);
        patience.tunnel_idle_timeout = 3 * LIMIT;
    };
    let site = Site::start(patient(change), ready(backend.address)).await;
    let mut client = Client::connect(site.address).await;
    client.send(UPGRADE).await;
    assert_eq!(client.response().await.status(), 101);
    for _ in 0..3 {
        tokio::time::sleep(2 * LIMIT).await;
        client.send("still there").await;
        assert_eq!(client.exactly(11).await.0, b"still there");
    }
    assert!(client.is_at_end().await, "it may be silent for ever");
    at_rest(&site).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_http_2_connection_is_closed_after_its_listener_s_time() {
    let backend = Backend::echo("vm").await;
    let mut config = knowing();
    config.listeners[0].idle_timeout = LIMIT;
    let site = Site::start(config, ready(backend.address)).await;
    let mut client = Frames::connect(site.address).await;
    client.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(&pseudo("GET", "/name")))).await;
    assert_eq!(client.outcome(1).await.0, Some(200));
    while client.next().await.is_some() {}
    assert_eq!(ask(site.address, "GET /name HTTP/1.0\r\n\r\n").await.text(), "vm");
}
