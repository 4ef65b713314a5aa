//! HTTP/2 from a client to a VM that speaks HTTP/1: what goes through, and what must not.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::net::TcpStream;
use weir_config::model::{Config, Listener};

use crate::backend::Backend;
use crate::client::{Client, header};
use crate::frames::{DATA, END_HEADERS, END_STREAM, Frames, HEADERS, block, frame, pseudo};
use crate::site::{Site, config, ready, within};

/// HTTP/2 by prior knowledge.
pub(crate) fn knowing() -> Config {
    let mut config = config();
    let plain = Listener::at("127.0.0.1:0".parse().unwrap());
    config.listeners = vec![Listener { http2: true, ..plain }];
    config
}

/// A backend, and the first line of each request that it saw.
async fn recording() -> (Backend, Arc<Mutex<Vec<String>>>) {
    let seen = Arc::<Mutex<Vec<String>>>::default();
    let lines = Arc::clone(&seen);
    let backend = Backend::start(move |mut connection| {
        let lines = Arc::clone(&lines);
        async move {
            while let Some((head, _)) = connection.request().await {
                lines.lock().push(head.lines().next().unwrap_or_default().to_owned());
                // Whatever follows a body that is longer than its length would be the next request.
                if header(&head, "transfer-encoding").is_some() {
                    while connection.some().await.is_some_and(|some| !some.ends_with(b"0\r\n\r\n")) {}
                }
                if !connection.answer(b"ok").await {
                    return;
                }
            }
        }
    })
    .await;
    (backend, seen)
}

#[tokio::test(flavor = "multi_thread")]
async fn both_protocols_on_one_listener() {
    let backend = Backend::echo("vm").await;
    let site = Site::start(knowing(), ready(backend.address)).await;
    // Shorter than HTTP/2's beginning, and nothing follows.
    let mut client = Client::connect(site.address).await;
    client.send("GET /x HTTP/1.0\r\n\r\n").await;
    assert_eq!(client.response().await.status(), 200);
    // The same first bytes.
    let mut client = Client::connect(site.address).await;
    client.send("P").await;
    client.send("RI * HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
    assert_eq!(client.response().await.status(), 400);
    let mut client = Client::connect(site.address).await;
    client.send("POST /y HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok").await;
    assert!(client.response().await.text().ends_with("ok"));

    let mut frames = Frames::connect(site.address).await;
    let request = block(&pseudo("GET", "/two"));
    frames.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &request)).await;
    let (status, body) = frames.outcome(1).await;
    assert_eq!(status, Some(200));
    assert!(body.starts_with(b"GET /two HTTP/1.1\r\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn where_http_2_is_off_its_beginning_is_a_bad_request() {
    let backend = Backend::echo("vm").await;
    let site = Site::start(config(), ready(backend.address)).await;
    let mut client = Client::connect(site.address).await;
    client.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    assert!(client.head().await.starts_with("HTTP/1.1 400 "));
}

/// What a VM would take for a request if it ended the body before.
const SMUGGLED: &str = "0\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n";

fn request(method: &str, path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let mut fields = pseudo(method, path);
    fields.extend_from_slice(more);
    block(&fields)
}

/// Header blocks, and bodies behind them.
fn deceits() -> Vec<(&'static str, Vec<u8>, Option<&'static str>)> {
    let (with, smuggled) = (request, SMUGGLED);
    vec![
        ("a length without a body", with("POST", "/", &[("content-length", "5")]), None),
        ("a length that is too short", with("POST", "/", &[("content-length", "2")]), Some(smuggled)),
        ("a length that is too long", with("POST", "/", &[("content-length", "500")]), Some(smuggled)),
        (
            "two lengths",
            with("POST", "/", &[("content-length", "0"), ("content-length", "53")]),
            Some(smuggled),
        ),
        ("a list of lengths", with("POST", "/", &[("content-length", "53, 53")]), Some(smuggled)),
        ("no number as length", with("POST", "/", &[("content-length", "+53")]), Some(smuggled)),
        ("transfer-encoding", with("POST", "/", &[("transfer-encoding", "chunked")]), Some(smuggled)),
        ("a connection field", with("POST", "/", &[("connection", "content-length")]), Some(smuggled)),
        ("an upgrade", with("GET", "/", &[("upgrade", "websocket")]), None),
        ("te", with("GET", "/", &[("te", "trailers, chunked")]), None),
        (
            "line ends in a value",
            with("GET", "/", &[("x-a", "1\r\nhost: b\r\n\r\nGET /smuggled HTTP/1.1")]),
            None,
        ),
        ("a line feed in a value", with("GET", "/", &[("x-a", "1\nx: y")]), None),
        ("a zero byte in a value", with("GET", "/", &[("x-a", "1\0")]), None),
        ("a colon in a name", with("GET", "/", &[("x-a: 1\r\nx-b", "1")]), None),
        ("a space in a name", with("GET", "/", &[("transfer-encoding ", "chunked")]), None),
        ("an upper-case name", with("GET", "/", &[("Content-Length", "5")]), None),
        ("line ends in the path", with("GET", "/ HTTP/1.1\r\nhost: b\r\n\r\nGET /smuggled", &[]), None),
        ("a space in the path", with("GET", "/ HTTP/1.1", &[]), None),
        ("line ends in the method", with("GET / HTTP/1.1\r\n\r\nGET", "/", &[]), None),
        ("a space in the method", with("GET /x", "/", &[]), None),
        ("an absolute path", with("GET", "http://b.example/", &[]), None),
        ("another host", with("GET", "/", &[("host", "b.example")]), None),
        ("two hosts", with("GET", "/", &[("host", "a.example"), ("host", "a.example")]), None),
        ("a pseudo field behind others", with("GET", "/", &[("x-a", "1"), (":path", "/smuggled")]), None),
        ("two paths", with("GET", "/", &[(":path", "/smuggled")]), None),
        ("an unknown pseudo field", with("GET", "/", &[(":status", "200")]), None),
        ("a tunnel", with("CONNECT", "/", &[]), None),
        ("a tunnel with a protocol", with("CONNECT", "/", &[(":protocol", "websocket")]), None),
        (
            "userinfo",
            block(&[(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "u@a")]),
            None,
        ),
    ]
}

/// A request that is not what it says, each on a connection of its own: what a VM sees is nothing, or one request.
#[tokio::test(flavor = "multi_thread")]
async fn no_request_of_http_2_becomes_two_of_http_1() {
    let (backend, seen) = recording().await;
    let site = Site::start(knowing(), ready(backend.address)).await;
    for (what, header, body) in deceits() {
        let mut frames = Frames::connect(site.address).await;
        let end = if body.is_none() { END_STREAM } else { 0 };
        frames.send(&frame(HEADERS, END_HEADERS | end, 1, &header)).await;
        if let Some(body) = body {
            // The stream may be gone.
            frames.try_send(&frame(DATA, END_STREAM, 1, body.as_bytes())).await;
        }
        let (status, _) = frames.outcome(1).await;
        assert_ne!(status, Some(200), "{what}");
        let lines = seen.lock().clone();
        assert!(lines.len() <= 1 && lines.iter().all(|line| line == "POST / HTTP/1.1"), "{what}: {lines:?}");
        seen.lock().clear();
    }
    // A body of chunks is a body.
    let mut frames = Frames::connect(site.address).await;
    frames.send(&frame(HEADERS, END_HEADERS, 1, &request("POST", "/last", &[]))).await;
    frames.send(&frame(DATA, END_STREAM, 1, SMUGGLED.as_bytes())).await;
    assert_eq!(frames.outcome(1).await.0, Some(200));
    assert_eq!(*seen.lock(), ["POST /last HTTP/1.1"]);
}

/// A body that looks like one of weir's own refusals in HTTP/1 is a body. It is so long that some of it
/// is written by itself.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_in_a_body_is_taken_for_a_refusal() {
    let body = "HTTP/1.1 400 ".repeat(400);
    let sent = body.clone();
    let backend = Backend::start(move |mut connection| {
        let body = sent.clone();
        async move {
            while connection.request().await.is_some() {
                connection.answer(body.as_bytes()).await;
            }
        }
    })
    .await;
    let site = Site::start(knowing(), ready(backend.address)).await;
    let mut frames = Frames::connect(site.address).await;
    for stream in [1, 3, 5] {
        frames.send(&frame(HEADERS, END_HEADERS | END_STREAM, stream, &block(&pseudo("GET", "/")))).await;
        assert_eq!(frames.outcome(stream).await, (Some(200), body.clone().into_bytes()));
    }
    assert_eq!(site.metric("weir_http_requests_total{code=\"400\""), None);
}

/// As large as several windows and buffers, and echoed while it comes.
#[tokio::test(flavor = "multi_thread")]
async fn large_bodies_go_both_ways() {
    const SIZE: usize = 8 << 20;
    let backend = Backend::start(|mut connection| async move {
        connection.head().await;
        connection.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {SIZE}\r\n\r\n")).await;
        let mut left = SIZE;
        while left > 0 {
            let Some(some) = connection.some().await else { return };
            left = left.saturating_sub(some.len());
            if !connection.send(some).await {
                return;
            }
        }
        connection.some().await;
    })
    .await;
    let site = Site::start(knowing(), ready(backend.address)).await;
    let socket = TcpStream::connect(site.address).await.unwrap();
    let (mut requests, connection) = within(h2::client::handshake(socket)).await.unwrap();
    let connection = tokio::spawn(connection);
    let request = http::Request::post("http://a.example/").header("content-length", SIZE).body(()).unwrap();
    let (response, mut body) = requests.send_request(request, false).unwrap();
    let sending = tokio::spawn(async move {
        let mut left = SIZE;
        while left > 0 {
            body.reserve_capacity(left.min(64 * 1024));
            let Some(Ok(room)) = std::future::poll_fn(|cx| body.poll_capacity(cx)).await else { return left };
            let room = room.min(left);
            left -= room;
            body.send_data(Bytes::from(vec![b'x'; room]), left == 0).unwrap();
        }
        left
    });
    let mut body = within(response).await.unwrap().into_body();
    let mut received = 0;
    while let Some(chunk) = within(body.data()).await {
        let length = chunk.unwrap().len();
        received += length;
        body.flow_control().release_capacity(length).unwrap();
    }
    assert_eq!((within(sending).await.unwrap(), received), (0, SIZE));
    connection.abort();
}

/// What becomes of a request that waits for a VM when its client resets it.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_s_end_ends_its_wait_though_its_body_is_unread() {
    let backend = Backend::echo("vm").await;
    let site = Site::start(knowing(), crate::site::silent(backend.address)).await;
    let mut frames = Frames::connect(site.address).await;
    frames.send(&frame(HEADERS, END_HEADERS, 1, &block(&pseudo("POST", "/")))).await;
    site.first_vm().await;
    assert_eq!(site.metric("weir_http_requests_in_flight"), Some(1.0));
    frames.send(&frame(crate::frames::RESET, 0, 1, &8_u32.to_be_bytes())).await;
    crate::site::until(|| site.metric("weir_http_requests_in_flight") == Some(0.0)).await;
}
