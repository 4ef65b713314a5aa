//! Requests that wait for a VM.

use std::sync::Arc;
use std::time::Duration;

use weir_config::model::{Class, HostPattern, Listener, Overflow, Route};
use weir_pool::fake::{Boot, Script};
use weir_vmm::{ExitReason, VmEvent};

use crate::backend::Backend;
use crate::client::{Client, ask, get};
use crate::site::{Site, config, config_with, ready, route, silent, until};

const GET: &str = "GET /name HTTP/1.1\r\nhost: a\r\n\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn ready_releases_the_request() {
    let backend = Backend::echo("vm").await;
    let site = Site::start(config(), silent(backend.address)).await;
    let mut client = Client::connect(site.address).await;
    client.send(GET).await;
    let vm = site.first_vm().await;
    assert_eq!(backend.connections(), 0);
    site.launcher.say(vm, VmEvent::Ready);
    assert_eq!(client.response().await.text(), "vm");
    client.send(GET).await;
    assert_eq!(client.response().await.text(), "vm");
    drop(client);

    let (_, log) = site.end().await;
    let field = |name: &str| log.iter().map(|line| line[name].clone()).collect::<Vec<_>>();
    assert_eq!(field("start"), ["cold", "warm"]);
    assert_eq!(field("vm"), [vm.0, vm.0]);
    assert!(log[0]["queue_ms"].as_f64() > Some(0.0));
    assert_eq!(log[1]["queue_ms"].as_f64(), Some(0.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_s_end_ends_its_wait() {
    let backend = Backend::echo("vm").await;
    let site = Site::start(config(), silent(backend.address)).await;
    let mut client = Client::connect(site.address).await;
    client.send(GET).await;
    site.first_vm().await;
    assert_eq!(site.pool().queued(), 1);
    drop(client);
    until(|| site.pool().queued() == 0).await;
    until(|| site.metric("weir_http_requests_in_flight") == Some(0.0)).await;
    let (_, log) = site.end().await;
    assert_eq!(log[0]["status"], 499);
    assert_eq!(log[0]["error"], "client_gone");
    assert_eq!(backend.connections(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_s_end_ends_its_wait_though_its_body_is_unread() {
    let backend = Backend::echo("vm").await;
    let site = Site::start(config(), silent(backend.address)).await;
    for sent in [0, 10, 50_000, 100_000] {
        let mut client = Client::connect(site.address).await;
        client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 100000\r\n\r\n").await;
        client.send(&"x".repeat(sent)).await;
        until(|| site.pool().queued() == 1).await;
        drop(client);
        until(|| site.pool().queued() == 0).await;
    }
    let (_, log) = site.end().await;
    assert!(log.iter().all(|line| line["error"] == "client_gone"), "{log:#?}");
    assert_eq!((log.len(), backend.connections()), (4, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_comes_in_the_wait_is_whole() {
    let backend = Backend::echo("vm").await;
    let site = Site::start(config(), silent(backend.address)).await;
    let mut client = Client::connect(site.address).await;
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nhello").await;
    until(|| site.pool().queued() == 1).await;
    client.send("world").await;
    site.launcher.say(site.first_vm().await, VmEvent::Ready);
    assert!(client.response().await.text().ends_with("\r\n\r\nhelloworld"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_answers_at_once_and_the_connection_stays() {
    let backend = Backend::echo("vm").await;
    let site = Site::start(config_with(|pool| pool.queue.max_pending = 1), silent(backend.address)).await;
    let mut waiting = Client::connect(site.address).await;
    waiting.send(GET).await;
    site.first_vm().await;
    let mut refused = Client::connect(site.address).await;
    for _ in 0..2 {
        refused.send(GET).await;
        let response = refused.response().await;
        assert_eq!(response.status(), 503);
        assert_eq!(response.header("weir-error"), Some("queue_full"));
        assert!(response.header("retry-after").unwrap().parse::<u64>().unwrap() >= 1);
    }
    site.launcher.say(site.first_vm().await, VmEvent::Ready);
    assert_eq!(waiting.response().await.text(), "vm");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nobody_may_wait_a_full_pool_answers_at_once_and_the_connection_stays() {
    let backend = Backend::echo("vm").await;
    let reject = |pool: &mut weir_config::model::Pool| pool.queue.overflow = Overflow::Reject;
    let site = Site::start(config_with(reject), silent(backend.address)).await;
    let mut client = Client::connect(site.address).await;
    for _ in 0..2 {
        client.send(GET).await;
        let response = client.response().await;
        assert_eq!((response.status(), response.header("weir-error")), (503, Some("no_room")));
        assert_eq!(response.header("retry-after"), Some("1"));
    }
    // It has woken the pool all the same.
    site.launcher.say(site.first_vm().await, VmEvent::Ready);
    site.pool().instances().wait_for(|now| now.ready == 1).await.unwrap();
    client.send(GET).await;
    assert_eq!(client.response().await.text(), "vm");
    assert_eq!(site.metric(r#"weir_requests_shed_total{reason="no_room"}"#), Some(2.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn routes_wait_by_their_class() {
    let backend = Backend::echo("vm").await;
    let one = |pool: &mut weir_config::model::Pool| {
        (pool.soft_limit, pool.hard_limit, pool.scale.max) = (1, 1, 1);
    };
    let mut config = config_with(one);
    let batch = Arc::new(Class { name: "batch".into(), weight: 1 });
    let mut route = Route::clone(&route("batch", HostPattern::Any, "/batch", "p"));
    route.class = batch;
    config.routes.push(Arc::new(route));
    let site = Site::start(config, silent(backend.address)).await;
    let mut clients = Vec::new();
    for (count, path) in [(1, "/batch/1"), (2, "/batch/2"), (3, "/1")] {
        let mut client = Client::connect(site.address).await;
        client.send(&format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")).await;
        until(|| site.pool().queued() == count).await;
        clients.push(client);
    }
    assert_eq!(site.metric(r#"weir_queue_depth{class="batch",pool="p"}"#), Some(2.0));
    assert_eq!(site.metric(r#"weir_queue_depth{class="default",pool="p"}"#), Some(1.0));
    site.launcher.say(site.first_vm().await, VmEvent::Ready);
    for client in &mut clients {
        assert_eq!(client.response().await.status(), 200);
    }
    let (_, log) = site.end().await;
    let paths: Vec<_> = log.iter().map(|line| line["path"].as_str().unwrap()).collect();
    assert_eq!(paths, ["/batch/1", "/1", "/batch/2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_has_an_end() {
    let change = |pool: &mut weir_config::model::Pool| pool.queue.timeout = Duration::from_millis(20);
    let site = Site::start(config_with(change), Script::boot(Boot::Silent)).await;
    let response = get(site.address, "/").await;
    assert_eq!((response.status(), response.header("weir-error")), (503, Some("queue_timeout")));
    // A body that has not been read is no hindrance.
    let response = ask(site.address, "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello").await;
    assert_eq!((response.status(), response.header("weir-error")), (503, Some("queue_timeout")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vm_that_cannot_start_is_the_answer() {
    let site = Site::start(config(), Script::boot(Boot::Exits(Duration::ZERO, ExitReason::Exited(1)))).await;
    let response = get(site.address, "/").await;
    assert_eq!((response.status(), response.header("weir-error")), (503, Some("start_failed")));
    assert!(response.header("retry-after").is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn pipelined_requests_are_answered_in_turn() {
    let backend = Backend::echo("vm").await;
    let site = Site::start(config(), ready(backend.address)).await;
    let mut client = Client::connect(site.address).await;
    client.send("GET /1 HTTP/1.1\r\nhost: a\r\n\r\nGET /2 HTTP/1.1\r\nhost: a\r\n\r\nGET /3 HTTP/1.1\r\nhost: a\r\n\r\n").await;
    for path in ["/1", "/2", "/3"] {
        let response = client.response().await;
        assert!(response.text().starts_with(&format!("GET {path} ")), "{}", response.text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_connection_is_closed_after_a_while() {
    let backend = Backend::echo("vm").await;
    let mut config = config();
    let listener = Listener::at("127.0.0.1:0".parse().unwrap());
    config.listeners = vec![Listener { idle_timeout: Duration::from_secs(1), ..listener }];
    let site = Site::start(config, ready(backend.address)).await;
    let mut client = Client::connect(site.address).await;
    client.send(GET).await;
    let response = client.response().await;
    assert_eq!(response.header("connection"), Some("keep-alive"));
    assert!(client.is_at_end().await);
}
