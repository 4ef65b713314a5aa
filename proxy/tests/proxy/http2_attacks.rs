//! What an HTTP/2 client can make weir do for nothing.
//!
//! Each attack is bounded; weir ends its connection, or holds no more than its limits, and others are served meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use crate::backend::Backend;
use crate::client::get;
use crate::frames::{
    CONTINUATION, END_HEADERS, END_STREAM, Frames, HEADERS, PING, RESET, SETTINGS, block, frame, pseudo,
};
use crate::http2::knowing;
use crate::site::{Site, config_with, ready, silent, until};

/// Sends `attack` up to `times` times and reads nothing back until weir ends the connection; how often it was sent.
async fn flood(site: &Site, times: u32, mut attack: impl FnMut(u32) -> Vec<u8>) -> u32 {
    let mut client = Frames::connect(site.address).await;
    let mut sent = 0;
    while sent < times && client.try_send(&attack(sent)).await {
        sent += 1;
    }
    sent
}

async fn serves_others(site: &Site) {
    assert_eq!(get(site.address, "/").await.status(), 200);
}

/// CVE-2023-44487: streams that are begun and reset at once.
#[tokio::test(flavor = "multi_thread")]
async fn rapid_reset_ends_its_connection() {
    let backend = Backend::echo("vm").await;
    let site = Site::start(knowing(), ready(backend.address)).await;
    let request = block(&pseudo("GET", "/"));
    let sent = flood(&site, 50_000, |number| {
        let stream = 2 * number + 1;
        let begin = frame(HEADERS, END_HEADERS | END_STREAM, stream, &request);
        [begin, frame(RESET, 0, stream, &8_u32.to_be_bytes())].concat()
    })
    .await;
    assert!(sent < 50_000, "the connection goes on");
    serves_others(&site).await;
    until(|| site.metric("weir_http_requests_in_flight") == Some(0.0)).await;
    // Most of them were never requests to weir.
    let (_, log) = site.end().await;
    assert!(log.len() < 10_000, "{}", log.len());
}

/// CVE-2024-27316 and others: a header without end.
#[tokio::test(flavor = "multi_thread")]
async fn a_continuation_flood_ends_its_connection() {
    let backend = Backend::echo("vm").await;
    let site = Site::start(knowing(), ready(backend.address)).await;
    let request = block(&pseudo("GET", "/"));
    for fields in [vec![("x-padding", "x".repeat(4000))], Vec::new()] {
        let fields: Vec<_> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let more = block(&fields);
        let sent = flood(&site, 20_000, |number| match number {
            0 => frame(HEADERS, END_STREAM, 1, &request),
            _ => frame(CONTINUATION, 0, 1, &more),
        })
        .await;
        assert!(sent < 20_000, "the connection goes on");
    }
    serves_others(&site).await;
    let (_, log) = site.end().await;
    assert_eq!(log.len(), 1, "no request of it is one: {log:?}");
}

/// Answers that pile up for a client that does not read them.
#[tokio::test(flavor = "multi_thread")]
async fn pings_and_settings_of_a_client_that_reads_nothing_are_not_taken_for_ever() {
    let backend = Backend::echo("vm").await;
    let site = Site::start(knowing(), ready(backend.address)).await;
    for kind in [PING, SETTINGS] {
        let payload: &[u8] = if kind == PING { b"12345678" } else { b"" };
        let many = frame(kind, 0, 0, payload).repeat(1000);
        let mut client = Frames::connect(site.address).await;
        // Far more than all buffers between the two of them.
        let mut sent = 0;
        let stuck = loop {
            let sending = tokio::io::AsyncWriteExt::write_all(&mut client.stream, &many);
            match tokio::time::timeout(Duration::from_millis(500), sending).await {
                Ok(Ok(())) if sent < 20_000 => sent += 1,
                Ok(Ok(())) => break false,
                // Ended, or taken no more of.
                Ok(Err(_)) | Err(_) => break true,
            }
        };
        assert!(stuck, "20 million frames of kind {kind} were answered to nobody");
        serves_others(&site).await;
    }
}

/// A client that wants much and takes nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_window_of_zero_holds_a_buffer_s_worth_of_each_answer() {
    const SIZE: usize = 4 << 20;
    let (taken, streams) = (Arc::<AtomicUsize>::default(), 8_usize);
    let count = Arc::clone(&taken);
    let backend = Backend::start(move |mut connection| {
        let count = Arc::clone(&count);
        async move {
            while connection.request().await.is_some() {
                connection.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {SIZE}\r\n\r\n")).await;
                for _ in 0..SIZE / 1024 {
                    if !connection.send([b'x'; 1024]).await {
                        return;
                    }
                    count.fetch_add(1024, SeqCst);
                }
            }
        }
    })
    .await;
    let site = Site::start(knowing(), ready(backend.address)).await;
    // SETTINGS_INITIAL_WINDOW_SIZE
    let mut client = Frames::connect_with(site.address, &[0, 4, 0, 0, 0, 0]).await;
    for stream in 0..streams {
        let stream = u32::try_from(2 * stream + 1).unwrap();
        client.send(&frame(HEADERS, END_HEADERS | END_STREAM, stream, &block(&pseudo("GET", "/")))).await;
    }
    // All answers have begun.
    until(|| site.metric("weir_http_requests_in_flight") == Some(8.0)).await;
    for _ in 0..streams {
        while client.next().await.unwrap().kind != HEADERS {}
    }
    serves_large(&site, SIZE).await;
    let held = taken.load(SeqCst).saturating_sub(SIZE);
    assert!(held < streams * SIZE / 2, "{held} of {} bytes were taken from VMs", streams * SIZE);
    drop(client);
    until(|| site.metric("weir_http_requests_in_flight") == Some(0.0)).await;
}

async fn serves_large(site: &Site, size: usize) {
    assert_eq!(get(site.address, "/").await.body.len(), size);
}

#[tokio::test(flavor = "multi_thread")]
async fn more_streams_than_allowed_are_refused_and_not_kept() {
    let backend = Backend::echo("vm").await;
    let mut config = config_with(|pool| {
        pool.queue.max_pending = 1000;
        (pool.queue.timeout, pool.start_timeout) = (Duration::from_secs(60), Duration::from_secs(60));
    });
    config.listeners = knowing().listeners;
    let site = Site::start(config, silent(backend.address)).await;
    let mut client = Frames::connect(site.address).await;
    let request = block(&pseudo("GET", "/"));
    for number in 0..150 {
        client.send(&frame(HEADERS, END_HEADERS | END_STREAM, 2 * number + 1, &request)).await;
    }
    for _ in 100..150 {
        let refused = loop {
            let frame = client.next().await.unwrap();
            if frame.kind == RESET {
                break frame;
            }
        };
        // REFUSED_STREAM
        assert_eq!(refused.payload, 7_u32.to_be_bytes());
    }
    until(|| site.metric("weir_http_requests_in_flight") == Some(100.0)).await;
}

/// Headers that are small on the wire and large in memory, and those that are large in both.
#[tokio::test(flavor = "multi_thread")]
async fn huge_headers_are_refused() {
    let backend = Backend::echo("vm").await;
    let site = Site::start(knowing(), ready(backend.address)).await;
    let value = "x".repeat(2000);
    let fields = |count: usize| {
        let mut fields = pseudo("GET", "/");
        fields.extend(std::iter::repeat_n(("x-padding", value.as_str()), count));
        block(&fields)
    };
    // One field into the table, and then references to it: one byte each (RFC 7541 section 6.1).
    let mut bomb = block(&pseudo("GET", "/"));
    bomb.extend_from_slice(&[0x40, 1, b'x', 0x7f, 0x81, 0x1e]);
    bomb.extend_from_slice(&[b'y'; 4096 - 128]);
    bomb.extend(std::iter::repeat_n(0xbe, 8000));
    for header in [fields(20), fields(40), bomb] {
        let mut client = Frames::connect(site.address).await;
        let mut pieces = header.chunks(16_000).peekable();
        let (mut kind, mut flags) = (HEADERS, END_STREAM);
        while let Some(piece) = pieces.next() {
            let end = if pieces.peek().is_none() { END_HEADERS } else { 0 };
            client.try_send(&frame(kind, flags | end, 1, piece)).await;
            (kind, flags) = (CONTINUATION, 0);
        }
        assert_ne!(client.outcome(1).await.0, Some(200));
    }
    assert_eq!(backend.connections(), 0);
    serves_others(&site).await;
}
