//! Bodies and tunnels: nothing is buffered whole, and a lease lasts as long as its stream.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::backend::Backend;
use crate::client::Client;
use crate::site::{Site, config, config_with, ready, until, within};

const SIZE: usize = 64 << 20;
/// More than the sockets' and pingora's buffers on the way hold together, much less than [`SIZE`].
const ON_THE_WAY: usize = 40 << 20;

// A proxy that writes without reading meanwhile would deadlock here, see `bridge`.
#[tokio::test(flavor = "multi_thread")]
async fn large_bodies_go_through_both_ways() {
    let backend = Backend::start(|mut connection| async move {
        connection.head().await;
        connection.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {SIZE}\r\n\r\n")).await;
        let mut left = SIZE;
        while left > 0 {
            let Some(chunk) = connection.some().await else { return };
            left -= chunk.len();
            if !connection.send(chunk).await {
                return;
            }
        }
    })
    .await;
    let site = Site::start(config(), ready(backend.address)).await;
    let stream = TcpStream::connect(site.address).await.unwrap();
    let (mut from, mut to) = stream.into_split();
    let sending = tokio::spawn(async move {
        let head = format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {SIZE}\r\n\r\n");
        to.write_all(head.as_bytes()).await.unwrap();
        for number in 0..SIZE / 65536 {
            to.write_all(&[u8::try_from(number % 251).unwrap(); 65536]).await.unwrap();
        }
        to
    });
    let mut got = Vec::new();
    let received = within(async {
        let mut chunk = vec![0; 65536];
        let mut body = None;
        loop {
            let read = from.read(&mut chunk).await.unwrap();
            assert_ne!(read, 0, "ended after {} bytes", got.len());
            got.extend_from_slice(&chunk[..read]);
            let body = *body.get_or_insert_with(|| crate::client::find(&got, b"\r\n\r\n").unwrap() + 4);
            if got.len() - body == SIZE {
                return body;
            }
        }
    })
    .await;
    let matches = |(index, byte): (usize, &u8)| usize::from(*byte) == index / 65536 % 251;
    assert!(got[received..].iter().enumerate().all(matches));
    drop(sending.await.unwrap());
    let (_, log) = site.end().await;
    assert_eq!((log[0]["bytes_in"].as_u64(), log[0]["bytes_out"].as_u64()), (Some(64 << 20), Some(64 << 20)));
}

/// Bytes of a body of `x`es, whatever framing stands between them.
fn payload(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| **byte == b'x').count()
}

// The answer comes in many small chunks, so that pingora takes far less of it in one turn than it sends of the body.
#[tokio::test(flavor = "multi_thread")]
async fn a_large_chunked_body_comes_back_whole_from_a_vm_that_answers_in_small_chunks() {
    let backend = Backend::start(|mut connection| async move {
        connection.head().await;
        connection.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
        let piece = [format!("{:x}\r\n", 512).as_bytes(), &[b'x'; 512], b"\r\n"].concat();
        let (mut owed, mut left) = (0, SIZE);
        while left > 0 {
            let Some(some) = connection.some().await else { return };
            owed += payload(&some);
            let pieces = owed / 512;
            if !connection.send(piece.repeat(pieces)).await {
                return;
            }
            (owed, left) = (owed % 512, left - pieces * 512);
        }
        connection.send("0\r\n\r\n").await;
    })
    .await;
    let site = Site::start(config(), ready(backend.address)).await;
    let stream = TcpStream::connect(site.address).await.unwrap();
    let (mut from, mut to) = stream.into_split();
    let sending = tokio::spawn(async move {
        to.write_all(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n").await.unwrap();
        let chunk = [&b"10000\r\n"[..], &[b'x'; 65536], b"\r\n"].concat();
        for _ in 0..SIZE / 65536 {
            to.write_all(&chunk).await.unwrap();
        }
        to.write_all(b"0\r\n\r\n").await.unwrap();
        to
    });
    let mut chunk = vec![0; 65536];
    let mut got = 0;
    within(async {
        while got < SIZE {
            let read = from.read(&mut chunk).await.unwrap();
            assert_ne!(read, 0, "ended after {got} bytes");
            got += payload(&chunk[..read]);
        }
    })
    .await;
    drop(sending.await.unwrap());
    assert_eq!(got, SIZE);
}

/// Writes until nothing has been taken for a while; how much was.
async fn write_until_stuck(stream: &mut TcpStream) -> usize {
    let mut written = 0;
    while written < SIZE {
        let write = stream.write(&[0; 65536]);
        match tokio::time::timeout(Duration::from_millis(300), write).await {
            Ok(Ok(wrote)) => written += wrote,
            Ok(Err(_)) | Err(_) => break,
        }
    }
    written
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_holds_its_vm_up_and_not_memory() {
    let (tell, mut told) = tokio::sync::mpsc::channel(1);
    let backend = Backend::start(move |mut connection| {
        let tell = tell.clone();
        async move {
            connection.head().await;
            connection.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {SIZE}\r\n\r\n")).await;
            tell.send(write_until_stuck(&mut connection.stream).await).await.unwrap();
        }
    })
    .await;
    let site = Site::start(config(), ready(backend.address)).await;
    let mut client = Client::connect(site.address).await;
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let written = within(told.recv()).await.unwrap();
    assert!(written < ON_THE_WAY, "{written}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vm_that_does_not_read_holds_its_client_up_and_not_memory() {
    let backend = Backend::start(|mut connection| async move {
        connection.head().await;
        std::future::pending::<()>().await;
    })
    .await;
    let site = Site::start(config(), ready(backend.address)).await;
    let mut client = Client::connect(site.address).await;
    client.send(&format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {SIZE}\r\n\r\n")).await;
    let written = within(write_until_stuck(&mut client.stream)).await;
    assert!(written < ON_THE_WAY, "{written}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_holds_its_lease() {
    let backend = Backend::start(|mut connection| async move {
        let head = connection.head().await.unwrap();
        if !head.to_ascii_lowercase().contains("upgrade: websocket") {
            connection.answer(b"plain").await;
            return;
        }
        connection
            .send("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n")
            .await;
        while let Some(bytes) = connection.some().await {
            connection.send(bytes).await;
        }
    })
    .await;
    let only_one = |pool: &mut weir_config::model::Pool| {
        (pool.hard_limit, pool.soft_limit, pool.scale.max) = (1, 1, 1);
    };
    let site = Site::start(config_with(only_one), ready(backend.address)).await;
    let mut socket = Client::connect(site.address).await;
    socket.send("GET / HTTP/1.1\r\nhost: a\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n").await;
    let response = socket.response().await;
    assert_eq!((response.status(), response.header("upgrade")), (101, Some("websocket")));
    for message in ["one", "two"] {
        socket.send(message).await;
        assert_eq!(socket.exactly(3).await.0, message.as_bytes());
    }
    let mut other = Client::connect(site.address).await;
    other.send("GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
    until(|| site.pool().queued() == 1).await;
    socket.send("end").await;
    assert_eq!(socket.exactly(3).await.0, b"end");
    drop(socket);
    assert_eq!(other.response().await.text(), "plain");
}

// With a body that is written in one go, see `Traffic::Exchange`, nothing reads the response meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_vm_that_answers_at_length_before_it_reads_gets_through() {
    const LONG: usize = 1 << 20;
    for length in [1, 32 * 1024, 32 * 1024 + 1, 1 << 20] {
        let backend = Backend::start(move |mut connection| async move {
            connection.head().await;
            connection.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {LONG}\r\n\r\n")).await;
            connection.send(vec![b'x'; LONG]).await;
            let mut left = length;
            while left > 0 {
                let Some(piece) = connection.some().await else { return };
                left -= piece.len();
            }
        })
        .await;
        let site = Site::start(config(), ready(backend.address)).await;
        let mut client = Client::connect(site.address).await;
        client.send(&format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n\r\n")).await;
        client.send(&"y".repeat(length)).await;
        assert_eq!(client.response().await.body.len(), LONG, "{length}");
    }
}
