//! Clients that send a request's body slowly, or not at all.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use weir_config::model::{Config, Patience, Route};

use crate::backend::Backend;
use crate::client::{Client, get};
use crate::frames::{DATA, END_HEADERS, END_STREAM, Frames, HEADERS, RESET, block, frame, pseudo};
use crate::http2::knowing;
use crate::site::{Site, line, ready, silent, until, within};

/// Both protocols, and a route with this patience.
pub(crate) fn patient(change: impl FnOnce(&mut Patience)) -> Config {
    let mut config = knowing();
    let mut route = Route::clone(&config.routes[0]);
    change(&mut route.filter.patience);
    config.routes = vec![Arc::new(route)];
    config
}

pub(crate) fn too_slow(site: &Site, reason: &str) -> Option<f64> {
    site.metric(&format!(r#"weir_http_requests_too_slow_total{{reason="{reason}",route="all"}}"#))
}

/// All has been given back.
pub(crate) async fn at_rest(site: &Site) {
    until(|| site.metric("weir_http_requests_in_flight") == Some(0.0)).await;
}

/// Answers GET, and takes whatever else comes, for ever.
async fn patient_vm() -> Backend {
    Backend::start(|mut connection| async move {
        while let Some(head) = connection.head().await {
            if head.starts_with("GET ") {
                connection.answer(b"vm").await;
                continue;
            }
            while connection.some().await.is_some() {}
        }
    })
    .await
}

const BODIES: [&str; 3] = ["content-length: 8\r\n\r\nab", "content-length: 99999\r\n\r\nab", CHUNKED];
const CHUNKED: &str = "transfer-encoding: chunked\r\n\r\n2\r\nab\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_stops_is_answered_408_and_others_are_served() {
    let backend = patient_vm().await;
    let config = patient(|patience| patience.body_timeout = Duration::from_millis(300));
    let site = Site::start(config, ready(backend.address)).await;
    let mut clients = Vec::new();
    for (number, rest) in BODIES.iter().enumerate() {
        let mut client = Client::connect(site.address).await;
        client.send(&format!("POST /{number} HTTP/1.1\r\nhost: a\r\n{rest}")).await;
        clients.push(client);
    }
    assert_eq!(get(site.address, "/name").await.text(), "vm");
    for mut client in clients {
        let response = client.response().await;
        assert_eq!((response.status(), response.header("weir-error")), (408, Some("body_timeout")));
        assert_eq!(response.header("connection"), Some("close"));
        assert!(client.is_at_end().await);
    }
    at_rest(&site).await;
    assert_eq!(too_slow(&site, "body_timeout"), Some(3.0));
    let (_, log) = site.end().await;
    assert_eq!(
        (&line(&log, "/1")["status"], &line(&log, "/1")["error"]),
        (&408.into(), &"body_timeout".into())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_http_2_body_that_stops_is_cut_and_its_connection_is_not() {
    let backend = patient_vm().await;
    let config = patient(|patience| patience.body_timeout = Duration::from_millis(300));
    let site = Site::start(config, ready(backend.address)).await;
    let mut client = Frames::connect(site.address).await;
    let mut small = pseudo("POST", "/1");
    small.push(("content-length", "8"));
    client.send(&frame(HEADERS, END_HEADERS, 1, &block(&small))).await;
    client.send(&frame(HEADERS, END_HEADERS, 3, &block(&pseudo("POST", "/3")))).await;
    for stream in [1, 3] {
        client.send(&frame(DATA, 0, stream, b"ab")).await;
    }
    let mut resets = Vec::new();
    while resets.len() < 2 {
        let frame = client.next().await.unwrap();
        if frame.kind == RESET {
            resets.push(frame.stream);
        }
    }
    resets.sort_unstable();
    assert_eq!(resets, [1, 3]);
    client.send(&frame(HEADERS, END_HEADERS | END_STREAM, 5, &block(&pseudo("GET", "/name")))).await;
    assert_eq!(client.outcome(5).await, (Some(200), b"vm".to_vec()));
    at_rest(&site).await;
    drop(client);
    let (_, log) = site.end().await;
    for path in ["/1", "/3"] {
        assert_eq!(
            (&line(&log, path)["status"], &line(&log, path)["error"]),
            (&408.into(), &"body_timeout".into())
        );
    }
}

/// Each piece comes in time, and all of them do not.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_drips_is_cut_when_its_patience_is_used_up() {
    let backend = patient_vm().await;
    let limit = Duration::from_millis(600);
    let config = patient(|patience| patience.body_timeout = limit);
    let site = Site::start(config, ready(backend.address)).await;
    let mut http1 = Client::connect(site.address).await;
    http1.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 100000\r\n\r\n").await;
    let mut http2 = Frames::connect(site.address).await;
    http2.send(&frame(HEADERS, END_HEADERS, 1, &block(&pseudo("POST", "/")))).await;
    within(async {
        while too_slow(&site, "body_timeout") != Some(2.0) {
            tokio::time::sleep(limit / 10).await;
            // One of them may have been cut already.
            let _ = tokio::io::AsyncWriteExt::write_all(&mut http1.stream, b"x").await;
            http2.try_send(&frame(DATA, 0, 1, b"x")).await;
        }
    })
    .await;
    assert_eq!(get(site.address, "/name").await.text(), "vm");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_keeps_the_rate_may_take_as_long_as_he_likes() {
    let backend = Backend::echo("vm").await;
    let limit = Duration::from_millis(400);
    let change = |patience: &mut Patience| (patience.body_timeout, patience.min_body_rate) = (limit, 10);
    let site = Site::start(patient(change), ready(backend.address)).await;
    let mut client = Client::connect(site.address).await;
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 60\r\n\r\n").await;
    for _ in 0..12 {
        tokio::time::sleep(limit / 4).await;
        client.send("12345").await;
    }
    assert_eq!(client.response().await.status(), 200);
}

/// A client that is held back, by a VM that does not read or by one that is not there yet, is not the slow one.
#[tokio::test(flavor = "multi_thread")]
async fn who_is_held_back_is_not_too_slow() {
    const SIZE: usize = 2 << 20;
    let (limit, read) = (Duration::from_millis(200), Arc::<Notify>::default());
    let may_read = Arc::clone(&read);
    let backend = Backend::start(move |mut connection| {
        let may_read = Arc::clone(&may_read);
        async move {
            let Some(_) = connection.head().await else { return };
            may_read.notified().await;
            let mut left = SIZE;
            while left > 0 {
                let Some(some) = connection.some().await else { return };
                left -= some.iter().filter(|byte| **byte == b'x').count();
            }
            connection.answer(b"whole").await;
        }
    })
    .await;
    let site = Site::start(patient(|patience| patience.body_timeout = limit), silent(backend.address)).await;
    let mut http1 = Client::connect(site.address).await;
    http1.send(&format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {SIZE}\r\n\r\n")).await;
    let stream = tokio::net::TcpStream::connect(site.address).await.unwrap();
    let (mut requests, connection) = within(h2::client::handshake(stream)).await.unwrap();
    let connection = tokio::spawn(connection);
    let request = http::Request::post("http://a/").body(()).unwrap();
    let (response, mut body) = requests.send_request(request, false).unwrap();
    let vm = site.first_vm().await;
    tokio::time::sleep(limit * 2).await;
    site.launcher.say(vm, weir_vmm::VmEvent::Ready);
    let sending = tokio::spawn(async move {
        let _ = tokio::io::AsyncWriteExt::write_all(&mut http1.stream, &vec![b'x'; SIZE]).await;
        http1
    });
    body.send_data(vec![b'x'; SIZE].into(), true).unwrap();
    until(|| backend.connections() == 2).await;
    tokio::time::sleep(limit * 4).await;
    read.notify_waiters();
    let mut http1 = within(sending).await.unwrap();
    assert_eq!(http1.response().await.text(), "whole");
    assert_eq!(within(response).await.unwrap().status(), 200);
    connection.abort();
}
