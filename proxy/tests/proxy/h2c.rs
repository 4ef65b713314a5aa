//! VMs that are asked in HTTP/2, and gRPC from end to end.

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, HeaderName, Request, Response};
use tokio::net::TcpStream;
use weir_config::model::{Config, Listener, Protocol};
use weir_vmm::ExitReason;

use crate::backend::Backend;
use crate::client::{Client, get, header};
use crate::secure::{self, VERSIONS};
use crate::site::{Site, config_with, ready, within};

/// HTTP/2 on both sides.
fn both() -> Config {
    let mut config = config_with(|pool| pool.protocol = Protocol::H2c);
    let plain = Listener::at("127.0.0.1:0".parse().unwrap());
    config.listeners = vec![Listener { http2: true, ..plain }];
    config
}

type Call = (Request<RecvStream>, SendResponse<Bytes>);

/// A VM that speaks HTTP/2 only.
async fn vm<F: Future<Output = ()> + Send + 'static>(
    answer: impl Fn(Call) -> F + Clone + Send + 'static,
) -> Backend {
    Backend::start(move |connection| {
        let answer = answer.clone();
        async move {
            let Ok(mut streams) = h2::server::handshake(connection.stream).await else { return };
            while let Some(Ok(call)) = streams.accept().await {
                tokio::spawn(answer(call));
            }
        }
    })
    .await
}

/// Sends back what comes, as it comes, and says at the end how it went and what it was asked.
async fn echo((request, mut respond): Call) {
    let asked = request.headers().clone();
    let answer = Response::builder().header("content-type", "application/grpc").body(()).unwrap();
    let (path, mut body) = (request.uri().path().to_owned(), request.into_body());
    if path == "/refused" {
        let mut refused = answer;
        refused.headers_mut().insert("grpc-status", 5.into());
        respond.send_response(refused, true).unwrap();
        return;
    }
    let mut send = respond.send_response(answer, false).unwrap();
    while let Some(Ok(message)) = body.data().await {
        let _ = body.flow_control().release_capacity(message.len());
        if !send_all(&mut send, message).await {
            return;
        }
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", 0.into());
    for name in ["te", "grpc-timeout", "x-forwarded-proto", "via"] {
        if let Some(value) = asked.get(name) {
            trailers.insert(HeaderName::try_from(format!("x-{name}")).unwrap(), value.clone());
        }
    }
    let _ = send.send_trailers(trailers);
}

/// With the window's leave; whether it was taken.
async fn send_all(stream: &mut SendStream<Bytes>, mut bytes: Bytes) -> bool {
    while !bytes.is_empty() {
        stream.reserve_capacity(bytes.len());
        let Some(Ok(room)) = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await else { return false };
        if stream.send_data(bytes.split_to(room.min(bytes.len())), false).is_err() {
            return false;
        }
    }
    true
}

async fn connect(site: &Site) -> SendRequest<Bytes> {
    let stream = within(TcpStream::connect(site.address)).await.unwrap();
    let (requests, connection) = within(h2::client::handshake(stream)).await.unwrap();
    tokio::spawn(connection);
    requests
}

/// Begins a call.
async fn call(requests: &SendRequest<Bytes>, path: &str) -> (ResponseFuture, SendStream<Bytes>) {
    let request = Request::post(format!("http://a.example{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("grpc-timeout", "5S")
        .body(())
        .unwrap();
    within(requests.clone().ready()).await.unwrap().send_request(request, false).unwrap()
}

async fn message(body: &mut RecvStream) -> Bytes {
    let message = within(body.data()).await.unwrap().unwrap();
    body.flow_control().release_capacity(message.len()).unwrap();
    message
}

/// Of an echo, when it has all of the request.
async fn trailers(body: &mut RecvStream) -> HeaderMap {
    while let Some(message) = within(body.data()).await {
        assert!(message.unwrap().is_empty());
    }
    within(body.trailers()).await.unwrap().unwrap()
}

/// Both sides speak in turns, and the end comes last.
async fn converse(requests: &SendRequest<Bytes>, scheme: &str) {
    let (response, mut send) = call(requests, "/a.B/C").await;
    let response = within(response).await.unwrap();
    assert_eq!(
        (response.status().as_u16(), &response.headers()["content-type"]),
        (200, &"application/grpc".parse().unwrap())
    );
    let mut body = response.into_body();
    for number in 0..20_u8 {
        let said = Bytes::from(vec![number; 100]);
        assert!(within(send_all(&mut send, said.clone())).await);
        assert_eq!(message(&mut body).await, said);
    }
    send.send_data(Bytes::new(), true).unwrap();
    let trailers = trailers(&mut body).await;
    for (name, value) in [
        ("grpc-status", "0"),
        ("x-te", "trailers"),
        ("x-grpc-timeout", "5S"),
        ("x-x-forwarded-proto", scheme),
        ("x-via", "2 weir"),
    ] {
        assert_eq!(trailers.get(name).map(|value| value.to_str().unwrap()), Some(value), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_go_both_ways_at_once_and_end_with_trailers() {
    let backend = vm(echo).await;
    let site = Site::start(both(), ready(backend.address)).await;
    converse(&connect(&site).await, "http").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_over_tls_do_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let backend = vm(echo).await;
    let mut config = both();
    config.listeners = vec![secure::listener(directory.path())];
    let site = Site::start(config, ready(backend.address)).await;
    let stream = secure::connect(site.address, "a.example", &["h2"], VERSIONS).await.unwrap();
    let (requests, connection) = within(h2::client::handshake(stream)).await.unwrap();
    tokio::spawn(connection);
    converse(&requests, "https").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_all_trailers_stays_one() {
    let backend = vm(echo).await;
    let site = Site::start(both(), ready(backend.address)).await;
    let (response, _send) = call(&connect(&site).await, "/refused").await;
    let response = within(response).await.unwrap();
    assert_eq!(response.headers()["grpc-status"], "5");
    assert!(response.body().is_end_stream());
}

#[tokio::test(flavor = "multi_thread")]
async fn large_messages_go_through_both_ways() {
    const SIZE: usize = 4 << 20;
    let backend = vm(echo).await;
    let site = Site::start(both(), ready(backend.address)).await;
    let (response, mut send) = call(&connect(&site).await, "/large").await;
    let sending = tokio::spawn(async move {
        assert!(send_all(&mut send, Bytes::from(vec![7; SIZE])).await);
        send.send_data(Bytes::new(), true).unwrap();
    });
    let mut body = within(response).await.unwrap().into_body();
    let mut received = 0;
    while received < SIZE {
        received += message(&mut body).await.len();
    }
    within(sending).await.unwrap();
    assert_eq!((received, &trailers(&mut body).await["grpc-status"]), (SIZE, &"0".parse().unwrap()));
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_share_a_connection_that_ends_with_its_vm() {
    let backend = vm(echo).await;
    let site = Site::start(both(), ready(backend.address)).await;
    let requests = connect(&site).await;
    let mut open = Vec::new();
    for _ in 0..2 {
        let (response, send) = call(&requests, "/").await;
        open.push((within(response).await.unwrap().into_body(), send));
    }
    assert_eq!(backend.connections(), 1);
    let first = site.first_vm().await;
    site.launcher.crash(first, ExitReason::Died("signal 9 (SIGKILL)".into()));
    for (mut body, _send) in open {
        assert!(within(body.data()).await.unwrap().is_err(), "an answer that breaks off is no whole one");
    }
    // Of another VM, at the same address; the former one's connection may be open still.
    converse(&requests, "http").await;
    assert_eq!(backend.connections(), 2);
    converse(&requests, "http").await;
    assert_eq!(backend.connections(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_vm_resets_is_tried_elsewhere() {
    let bad = vm(|(_, mut respond)| async move { respond.send_reset(h2::Reason::INTERNAL_ERROR) }).await;
    let good = vm(echo).await;
    let site = Site::start(both(), ready(good.address)).await;
    site.launcher.script_next(ready(bad.address));
    let response = get(site.address, "/").await;
    assert_eq!(response.status(), 200);
    assert_eq!(site.metric("weir_http_retries_total{pool=\"p\"}"), Some(1.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_of_http_1_are_served_too() {
    let backend = vm(echo).await;
    let site = Site::start(both(), ready(backend.address)).await;
    let mut client = Client::connect(site.address).await;
    for (body, expected) in [
        ("content-length: 2\r\n\r\nok", "ok"),
        ("transfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", "ok"),
        ("upgrade: websocket\r\nconnection: upgrade\r\ncontent-length: 0\r\n\r\n", ""),
    ] {
        client.send(&format!("POST / HTTP/1.1\r\nhost: a\r\n{body}")).await;
        let response = client.response().await;
        assert_eq!((response.status(), response.text()), (200, expected));
        assert_eq!(header(&response.head, "via"), Some("2 weir"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_of_calls_are_grpc() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut config = both();
    config.routes[0] = crate::site::route("all", weir_config::model::HostPattern::Any, "/vm", "p");
    std::sync::Arc::make_mut(config.pools.get_mut("p").unwrap()).retry.floor = 0;
    let site = Site::start(config, ready(nobody)).await;
    let requests = connect(&site).await;
    for (path, status, word) in
        [("/none", "12", "no_route"), ("/%00", "13", "bad_request"), ("/vm", "14", "vm_failed")]
    {
        let (response, _send) = call(&requests, path).await;
        let response = within(response).await.unwrap();
        let headers = response.headers();
        assert_eq!(response.status(), 200);
        assert_eq!(
            (headers["grpc-status"].to_str().unwrap(), headers["weir-error"].to_str().unwrap()),
            (status, word)
        );
        assert_eq!(headers["content-type"], "application/grpc");
        assert!(response.body().is_end_stream(), "it is all in the header");
    }
    let request = Request::get("http://a.example/none").body(()).unwrap();
    let (response, _) = within(requests.ready()).await.unwrap().send_request(request, true).unwrap();
    assert_eq!(within(response).await.unwrap().status(), 404);
}
