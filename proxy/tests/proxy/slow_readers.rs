//! Clients that do not take their answers.

use std::time::Duration;

use tokio::net::TcpSocket;

use crate::backend::Backend;
use crate::client::get;
use crate::frames::{END_HEADERS, END_STREAM, Frames, HEADERS, RESET, block, frame, pseudo};
use crate::site::{Site, line, ready};
use crate::slow_bodies::{at_rest, patient, too_slow};

/// Answers `/large` without end.
async fn endless() -> Backend {
    Backend::start(|mut connection| async move {
        while let Some((head, _)) = connection.request().await {
            if !head.contains(" /large ") {
                connection.answer(b"small").await;
                continue;
            }
            connection.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
            let chunk = format!("4000\r\n{}\r\n", "x".repeat(0x4000));
            while connection.send(&chunk).await {}
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn who_reads_nothing_is_cut_and_others_are_served() {
    let backend = endless().await;
    let config = patient(|patience| patience.write_timeout = Duration::from_millis(300));
    let site = Site::start(config, ready(backend.address)).await;
    // As small as it gets.
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(1).unwrap();
    let mut http1 = socket.connect(site.address).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut http1, b"GET /large HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    // SETTINGS_INITIAL_WINDOW_SIZE
    let mut http2 = Frames::connect_with(site.address, &[0, 4, 0, 0, 0, 0]).await;
    http2.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(&pseudo("GET", "/large")))).await;
    while http2.next().await.unwrap().kind != RESET {}
    assert_eq!(get(site.address, "/small").await.text(), "small");
    at_rest(&site).await;
    assert_eq!(too_slow(&site, "write_timeout"), Some(2.0));
    drop((http1, http2));
    let (_, log) = site.end().await;
    let cut = line(&log, "/large");
    assert_eq!((&cut["status"], &cut["error"]), (&200.into(), &"write_timeout".into()));
}
