//! WebSockets: many at once, and how they end when weir does.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::JoinSet;
use weir_proxy::Timeouts;

use crate::backend::{Backend, Connection};
use crate::client::Client;
use crate::site::{Site, config, config_with, ready, within};

const UPGRADE: &str = "GET /socket HTTP/1.1\r\nhost: a\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
    sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
    sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
/// A text frame of five bytes, and its first three.
const HELLO: &[u8] = b"\x81\x05hello";
const PART: &[u8] = b"\x81\x05h";
/// 1001, "going away".
const LEAVE: &[u8] = b"\x88\x02\x03\xe9";

/// Sends back what it gets.
async fn echoes(mut connection: Connection) {
    connection.head().await;
    connection.send(SWITCH).await;
    while let Some(bytes) = connection.some().await {
        connection.send(bytes).await;
    }
}

async fn open(site: &Site) -> Client {
    let mut client = Client::connect(site.address).await;
    client.send(UPGRADE).await;
    assert_eq!(client.response().await.status(), 101);
    client
}

async fn echo(client: &mut Client, number: usize) {
    let message = format!("{number:08}");
    client.send(&message).await;
    assert_eq!(client.exactly(8).await.0, message.as_bytes());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_to_one_vm_are_all_alive() {
    const MANY: usize = 1000;
    const LANES: usize = 8;
    let backend = Backend::start(echoes).await;
    let room = |pool: &mut weir_config::model::Pool| (pool.hard_limit, pool.soft_limit) = (1024, 1024);
    weir_proxy::raise_descriptor_limit().unwrap();
    let site = Arc::new(Site::start(config_with(room), ready(backend.address)).await);
    let mut opening = JoinSet::new();
    // As many at a time as the backend's queue of connections has room for.
    for lane in 0..LANES {
        let site = Arc::clone(&site);
        opening.spawn(async move {
            let mut clients = Vec::new();
            for number in (lane..MANY).step_by(LANES) {
                let mut client = open(&site).await;
                echo(&mut client, number).await;
                clients.push(client);
            }
            clients
        });
    }
    let mut clients = opening.join_all().await.into_iter().flatten().collect::<Vec<_>>();
    assert_eq!(site.metric("weir_http_requests_in_flight"), Some(1000.0));
    for (number, client) in clients.iter_mut().enumerate() {
        echo(client, number).await;
    }
    assert_eq!((site.launcher.started().len(), backend.connections()), (1, MANY));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_s_end_takes_leave_of_both_ends_between_frames() {
    // One VM says a whole frame, the other leaves one open, and ends it when it is too late.
    for whole in [true, false] {
        let heard = Arc::<Mutex<Vec<u8>>>::default();
        let hears = Arc::clone(&heard);
        let backend = Backend::start(move |mut connection| {
            let hears = Arc::clone(&hears);
            async move {
                connection.head().await;
                connection.send(SWITCH).await;
                connection.send(if whole { HELLO } else { PART }).await;
                while let Some(bytes) = connection.some().await {
                    hears.lock().extend_from_slice(&bytes);
                    if !whole {
                        connection.send([&HELLO[PART.len()..], HELLO].concat()).await;
                    }
                }
            }
        })
        .await;
        let timeouts = Timeouts { drain: Duration::from_millis(20), ..Timeouts::default() };
        let site = Site::start_with(config(), ready(backend.address), timeouts).await;
        let mut client = open(&site).await;
        let said = if whole { HELLO } else { PART };
        assert_eq!(client.exactly(said.len()).await.0, said);
        site.shut_down();
        if !whole {
            // Nothing to the VM, whose frame is awaited, or the client's: it is told, and answers to that.
            assert_eq!(client.exactly(HELLO.len() - PART.len()).await.0, &HELLO[PART.len()..]);
        }
        assert_eq!(client.exactly(LEAVE.len()).await.0, LEAVE);
        assert!(client.is_at_end().await, "nothing comes behind it");
        let (drained, _) = site.end().await;
        assert_eq!(drained.unfinished, 0);
        within(async {
            while heard.lock().len() < 8 {
                tokio::task::yield_now().await
            }
        })
        .await;
        let heard = heard.lock();
        let [0x88, 0x82, a, b, c, d, high, low] = heard[..] else { panic!("{heard:?}") };
        assert_eq!([high ^ a, low ^ b], [0x03, 0xe9], "{c} {d}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_speaks_no_frames_just_ends() {
    let backend = Backend::start(|mut connection| async move {
        connection.head().await;
        connection.send("HTTP/1.1 101 x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nhello").await;
        while connection.some().await.is_some() {}
    })
    .await;
    let timeouts = Timeouts { drain: Duration::from_millis(20), ..Timeouts::default() };
    let site = Site::start_with(config(), ready(backend.address), timeouts).await;
    let mut client = open(&site).await;
    assert_eq!(client.exactly(5).await.0, b"hello");
    site.shut_down();
    assert!(client.is_at_end().await);
}
