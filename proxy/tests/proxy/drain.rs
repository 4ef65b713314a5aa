//! The end of serving.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::Notify;
use weir_proxy::Timeouts;

use crate::backend::Backend;
use crate::client::Client;
use crate::site::{Site, config, ready, until, within};

/// Answers when it is let go.
pub(crate) async fn held_back() -> (Backend, Arc<Notify>, Arc<Notify>) {
    let (taken, release) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (tell, wait) = (taken.clone(), release.clone());
    let backend = Backend::start(move |mut connection| {
        let (tell, wait) = (tell.clone(), wait.clone());
        async move {
            while connection.request().await.is_some() {
                tell.notify_one();
                wait.notified().await;
                connection.answer(b"done").await;
            }
        }
    })
    .await;
    (backend, taken, release)
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_under_way_end_well_and_no_new_ones_come() {
    let (backend, taken, release) = held_back().await;
    let site = Site::start(config(), ready(backend.address)).await;
    let mut idle = Client::connect(site.address).await;
    let mut busy = Client::connect(site.address).await;
    busy.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    within(taken.notified()).await;
    site.shut_down();
    assert!(idle.is_at_end().await);
    assert!(!site.serving.is_finished());
    within(async { while TcpStream::connect(site.address).await.is_ok() {} }).await;
    release.notify_one();
    let response = busy.response().await;
    assert_eq!((response.text(), response.header("connection")), ("done", Some("close")));
    assert!(busy.is_at_end().await);
    let (drained, log) = site.end().await;
    assert_eq!((drained.unfinished, log.len()), (0, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_has_a_deadline() {
    let (backend, taken, _release) = held_back().await;
    let timeouts = Timeouts { drain: Duration::from_millis(20), ..Timeouts::default() };
    let mut site = Site::start_with(config(), ready(backend.address), timeouts).await;
    let mut busy = Client::connect(site.address).await;
    busy.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    within(taken.notified()).await;
    site.shut_down();
    assert_eq!(within(&mut site.serving).await.unwrap().unwrap().unfinished, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_waits_is_served_in_the_drain() {
    let (backend, taken, release) = held_back().await;
    let site = Site::start(config(), crate::site::silent(backend.address)).await;
    let mut client = Client::connect(site.address).await;
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    site.first_vm().await;
    site.shut_down();
    within(async { while TcpStream::connect(site.address).await.is_ok() {} }).await;
    site.launcher.say(site.first_vm().await, weir_vmm::VmEvent::Ready);
    within(taken.notified()).await;
    release.notify_one();
    assert_eq!(client.response().await.text(), "done");
    until(|| site.metric("weir_http_requests_in_flight") == Some(0.0)).await;
}
