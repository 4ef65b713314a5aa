//! Hostile clients, and VMs, around the switch to another protocol.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use weir_proxy::Timeouts;

use crate::backend::{Backend, Connection};
use crate::client::{Client, ask};
use crate::site::{Site, config, config_with, ready, until, within};

const UPGRADE: &str = "GET /socket HTTP/1.1\r\nhost: a\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n";
const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";

/// Switches when asked, and sends back what it gets then; answers other requests with their heads.
async fn echoes(mut connection: Connection) {
    while let Some(head) = connection.head().await {
        if !head.to_ascii_lowercase().contains("upgrade: websocket") {
            connection.answer(head.as_bytes()).await;
            continue;
        }
        connection.send(SWITCH).await;
        while let Some(bytes) = connection.some().await {
            connection.send(bytes).await;
        }
        return;
    }
}

/// Answers each request with its head, and never switches.
async fn plain(mut connection: Connection) {
    while let Some(head) = connection.head().await {
        connection.answer(head.as_bytes()).await;
    }
}

fn one_lease(pool: &mut weir_config::model::Pool) {
    (pool.hard_limit, pool.soft_limit, pool.scale.max) = (1, 1, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_follows_an_upgrade_that_was_declined_is_the_next_request() {
    let backend = Backend::start(plain).await;
    let site = Site::start(config_with(one_lease), ready(backend.address)).await;
    let mut client = Client::connect(site.address).await;
    client.send(&format!("{UPGRADE}GET /next HTTP/1.1\r\nhost: a\r\n\r\n")).await;
    for path in ["/socket", "/next"] {
        let response = client.response().await;
        assert_eq!(response.status(), 200);
        assert!(response.text().starts_with(&format!("GET {path} ")), "{}", response.text());
    }
    let (_, log) = site.end().await;
    assert_eq!(log.iter().map(|line| &line["status"]).collect::<Vec<_>>(), [200, 200]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_follows_an_upgrade_is_the_tunnel_s_and_no_request() {
    let backend = Backend::start(echoes).await;
    let site = Site::start(config(), ready(backend.address)).await;
    let mut client = Client::connect(site.address).await;
    let hidden = "GET /hidden HTTP/1.1\r\nhost: a\r\n\r\n";
    client.send(&format!("{UPGRADE}{hidden}")).await;
    assert_eq!(client.response().await.status(), 101);
    assert_eq!(client.exactly(hidden.len()).await.0, hidden.as_bytes());
    drop(client);
    let (_, log) = site.end().await;
    assert_eq!(log.iter().map(|line| &line["path"]).collect::<Vec<_>>(), ["/socket"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn http_1_0_knows_no_switch() {
    let backend = Backend::start(echoes).await;
    let site = Site::start(config(), ready(backend.address)).await;
    let response = ask(site.address, &UPGRADE.replace("HTTP/1.1", "HTTP/1.0")).await;
    assert_ne!(response.status(), 101, "{}", response.head);
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_vm_sends_after_the_switch_is_the_client_s_own_business() {
    const GARBAGE: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n\0\xff\r\n\r\n0\r\n\r\n";
    let backend = Backend::start(|mut connection| async move {
        connection.head().await;
        connection.send([SWITCH.as_bytes(), GARBAGE].concat()).await;
    })
    .await;
    let site = Site::start(config_with(one_lease), ready(backend.address)).await;
    let mut client = Client::connect(site.address).await;
    client.send(UPGRADE).await;
    assert_eq!(client.response().await.status(), 101);
    let mut rest = Vec::new();
    let (got, whole) = client.exactly(GARBAGE.len()).await;
    rest.extend_from_slice(&got);
    assert!(whole && rest == GARBAGE, "{:?}", String::from_utf8_lossy(&rest));
    assert!(client.is_at_end().await, "the vm has closed");
    until(|| site.metric("weir_http_requests_in_flight") == Some(0.0)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_switch_with_a_body_s_length_is_a_switch() {
    let backend = Backend::start(|mut connection| async move {
        connection.head().await;
        connection.send(SWITCH.replace("upgrade: ", "content-length: 2\r\nupgrade: ")).await;
        while let Some(bytes) = connection.some().await {
            connection.send(bytes).await;
        }
    })
    .await;
    let site = Site::start(config(), ready(backend.address)).await;
    let mut client = Client::connect(site.address).await;
    client.send(UPGRADE).await;
    assert!(client.head().await.starts_with("HTTP/1.1 101 "));
    client.send("more than two").await;
    assert_eq!(client.exactly(13).await.0, b"more than two");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_only_stops_sending_gets_what_is_under_way_and_gives_its_lease_up() {
    let backend = Backend::start(echoes).await;
    let site = Site::start(config_with(one_lease), ready(backend.address)).await;
    let mut client = Client::connect(site.address).await;
    client.send(UPGRADE).await;
    assert_eq!(client.response().await.status(), 101);
    client.send("last").await;
    assert_eq!(client.exactly(4).await.0, b"last");
    client.stream.shutdown().await.unwrap();
    assert!(client.is_at_end().await);
    until(|| site.metric("weir_http_requests_in_flight") == Some(0.0)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_sockets_up_to_the_limit_keep_others_waiting_and_nothing_else() {
    const MANY: usize = 40;
    let backend = Backend::start(echoes).await;
    let limits = |pool: &mut weir_config::model::Pool| {
        (pool.hard_limit, pool.soft_limit, pool.scale.max) = (10, 10, 4);
        pool.queue.timeout = Duration::from_secs(1);
    };
    let site = Site::start(config_with(limits), ready(backend.address)).await;
    let mut sockets = Vec::new();
    for _ in 0..MANY {
        let mut client = Client::connect(site.address).await;
        client.send(UPGRADE).await;
        assert_eq!(client.response().await.status(), 101);
        sockets.push(client);
    }
    let refused = ask(site.address, UPGRADE).await;
    assert_eq!((refused.status(), refused.header("weir-error")), (503, Some("queue_timeout")));
    for client in &mut sockets {
        client.send("still there").await;
        assert_eq!(client.exactly(11).await.0, b"still there");
    }
    let mut waiting = Client::connect(site.address).await;
    waiting.send(UPGRADE).await;
    until(|| site.pool().queued() == 1).await;
    drop(sockets);
    assert_eq!(waiting.response().await.status(), 101);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_does_not_buy_a_silent_vm_more_time() {
    let backend = Backend::start(|mut connection| async move {
        connection.head().await;
        // Neither answers nor closes.
        let _ = connection.stream.read(&mut [0; 1]).await;
    })
    .await;
    let timeouts = Timeouts { read: Duration::from_millis(200), ..Timeouts::default() };
    let site = Site::start_with(config(), ready(backend.address), timeouts).await;
    let response = ask(site.address, UPGRADE).await;
    assert_eq!((response.status(), response.header("weir-error")), (504, Some("upstream_timeout")));
    until(|| site.metric("weir_http_requests_in_flight") == Some(0.0)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_may_be_silent_for_longer_than_an_answer() {
    let backend = Backend::start(echoes).await;
    let timeouts = Timeouts { read: Duration::from_millis(500), ..Timeouts::default() };
    let site = Site::start_with(config(), ready(backend.address), timeouts).await;
    let mut client = Client::connect(site.address).await;
    client.send(UPGRADE).await;
    assert_eq!(client.response().await.status(), 101);
    let silence = within(tokio::time::timeout(Duration::from_millis(1200), client.stream.read_u8())).await;
    assert!(silence.is_err(), "{silence:?}");
    client.send("still there").await;
    assert_eq!(client.exactly(11).await.0, b"still there");
}

#[tokio::test(flavor = "multi_thread")]
async fn nor_does_it_once_the_vm_has_declined() {
    let backend = Backend::start(|mut connection| async move {
        connection.head().await;
        connection.send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf").await;
        let _ = connection.stream.read(&mut [0; 1]).await;
    })
    .await;
    let timeouts = Timeouts { read: Duration::from_millis(200), ..Timeouts::default() };
    let site = Site::start_with(config(), ready(backend.address), timeouts).await;
    let mut client = Client::connect(site.address).await;
    client.send(UPGRADE).await;
    assert!(client.head().await.starts_with("HTTP/1.1 200 "));
    assert_eq!(client.exactly(10).await, (b"half".to_vec(), false));
    let (_, log) = site.end().await;
    assert_eq!(log[0]["error"], "truncated");
}

#[tokio::test(flavor = "multi_thread")]
async fn vms_are_asked_for_websockets_and_for_nothing_else() {
    let backend = Backend::start(plain).await;
    let site = Site::start(config(), ready(backend.address)).await;
    for (fields, passed) in [
        ("upgrade: WebSocket", true),
        ("upgrade: websocket\r\nupgrade: other", true),
        ("upgrade: other\r\nupgrade: websocket", false),
        ("upgrade: websocket, other", false),
        ("upgrade: websocket/13", false),
        ("upgrade: h2c", false),
    ] {
        let response = ask(site.address, &UPGRADE.replace("upgrade: websocket", fields)).await;
        assert_eq!(response.status(), 200);
        let text = response.text().to_ascii_lowercase();
        assert_eq!(text.contains("\r\nupgrade: websocket\r\n"), passed, "{fields}: {text}");
        assert_eq!(text.matches("upgrade: ").count(), usize::from(passed), "{fields}: {text}");
    }
}
