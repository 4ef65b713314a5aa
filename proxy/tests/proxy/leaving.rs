//! A proxy whose sockets others accept on by now.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use weir_proxy::Timeouts;

use crate::backend::Backend;
use crate::client::Client;
use crate::drain::held_back;
use crate::site::{Site, config, ready, within};

const GET: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";

/// Answers all requests.
async fn backend() -> Backend {
    Backend::start(|mut connection| async move {
        while connection.request().await.is_some() {
            connection.answer(b"done").await;
        }
    })
    .await
}

/// A client whose connection is open after this request.
async fn served(address: SocketAddr) -> Client {
    let mut client = Client::connect(address).await;
    client.send(GET).await;
    assert_ne!(client.response().await.header("connection"), Some("close"));
    client
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_have_one_request_more_and_the_socket_lives_on() {
    let backend = backend().await;
    let mut site = Site::start(config(), ready(backend.address)).await;
    let mut idle = served(site.address).await;
    let sockets = site.reloader.sockets().await.unwrap();
    let descriptor = sockets[0].descriptor().unwrap().unwrap();
    drop(sockets);
    site.reloader.leave().await.unwrap();
    // Told; when it has heard of it, the next request is the last one.
    let last = async {
        loop {
            assert_eq!(site.metric("weir_http_connections"), Some(1.0));
            idle.send(GET).await;
            let response = idle.response().await;
            assert_eq!(response.text(), "done");
            if response.header("connection") == Some("close") {
                return;
            }
        }
    };
    within(last).await;
    assert!(idle.is_at_end().await);
    let drained = within(&mut site.serving).await.unwrap().unwrap();
    assert_eq!(drained.unfinished, 0);
    // Whoever has the socket has the clients.
    let other = TcpListener::from(descriptor);
    other.set_nonblocking(false).unwrap();
    let _client = Client::connect(site.address).await;
    within(tokio::task::spawn_blocking(move || other.accept().unwrap())).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_waited_for_beyond_the_deadline() {
    let (backend, taken, _release) = held_back().await;
    let timeouts = Timeouts { drain: Duration::from_millis(20), ..Timeouts::default() };
    let mut site = Site::start_with(config(), ready(backend.address), timeouts).await;
    let mut idle = Client::connect(site.address).await;
    let mut busy = Client::connect(site.address).await;
    busy.send(GET).await;
    within(taken.notified()).await;
    site.reloader.leave().await.unwrap();
    let drained = within(&mut site.serving).await.unwrap().unwrap();
    assert_eq!(drained.unfinished, 1);
    assert!(idle.is_at_end().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_ends_the_wait_for_idle_connections() {
    let backend = backend().await;
    let mut site = Site::start(config(), ready(backend.address)).await;
    let mut idle = served(site.address).await;
    site.reloader.leave().await.unwrap();
    within(async { while site.reloader.sockets().await.is_ok() {} }).await;
    assert!(!site.serving.is_finished());
    site.shut_down();
    assert_eq!(within(&mut site.serving).await.unwrap().unwrap().unfinished, 0);
    assert!(idle.is_at_end().await);
}
