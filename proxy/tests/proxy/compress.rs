//! Responses that are compressed on their way to the client.

use std::io::Read;

use tokio::net::TcpStream;
use tokio::sync::mpsc;
use weir_config::model::Config;

use crate::actions::routed;
use crate::backend::Backend;
use crate::client::{Client, Response, ask, header};
use crate::http2::knowing;
use crate::site::{Site, ready, within};

fn compressing(how: &str) -> Config {
    routed(&format!("[[route]]\nname = 'r'\npool = 'p'\ncompress = {how}\n"))
}

fn body() -> Vec<u8> {
    (0..4000).flat_map(|line| format!("{line} of a text that has a lot in common\n").into_bytes()).collect()
}

/// Answers with this header and body, whatever is asked.
async fn answering(header: &'static str, body: Vec<u8>) -> Backend {
    Backend::start(move |mut connection| {
        let body = body.clone();
        async move {
            while let Some((head, _)) = connection.request().await {
                let header = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n{header}\r\n\r\n", body.len());
                let body = if head.starts_with("HEAD ") { &[] } else { &body[..] };
                if !(connection.send(header).await && connection.send(body).await) {
                    return;
                }
            }
        }
    })
    .await
}

async fn accepting(site: &Site, method: &str, codings: &str) -> Response {
    let request =
        format!("{method} / HTTP/1.1\r\nhost: a\r\naccept-encoding: {codings}\r\nconnection: close\r\n\r\n");
    ask(site.address, &request).await
}

fn decoded(response: &Response) -> Vec<u8> {
    let (body, mut text) = (&response.body[..], Vec::new());
    match response.header("content-encoding") {
        Some("gzip") => flate2::read::GzDecoder::new(body).read_to_end(&mut text).unwrap(),
        Some("br") => brotli::Decompressor::new(body, 4096).read_to_end(&mut text).unwrap(),
        Some("zstd") => zstd::stream::read::Decoder::new(body).unwrap().read_to_end(&mut text).unwrap(),
        other => panic!("{other:?}"),
    };
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_gets_what_it_takes() {
    let fields = "content-type: text/html\r\netag: \"x\"\r\naccept-ranges: bytes";
    let backend = answering(fields, body()).await;
    let site = Site::start(compressing("true"), ready(backend.address)).await;
    for (codings, coding) in [
        ("gzip, br, zstd", "zstd"),
        ("gzip, br", "br"),
        ("gzip;q=0.8, br;q=0", "gzip"),
        ("br;q=0.5, gzip", "gzip"),
    ] {
        let response = accepting(&site, "GET", codings).await;
        assert_eq!(response.header("content-encoding"), Some(coding), "{codings}");
        assert_eq!(response.header("vary"), Some("accept-encoding"));
        assert_eq!(response.header("etag"), Some("W/\"x\""));
        assert_eq!((response.header("content-length"), response.header("accept-ranges")), (None, None));
        assert!(response.body.len() * 3 < body().len(), "{}", response.body.len());
        assert!(decoded(&response) == body(), "{codings}");
    }
    for (method, codings) in [("GET", "identity"), ("GET", "gzip;q=0, *;q=0"), ("HEAD", "gzip")] {
        let mut client = Client::connect(site.address).await;
        client.send(&format!("{method} / HTTP/1.1\r\nhost: a\r\naccept-encoding: {codings}\r\n\r\n")).await;
        let head = client.head().await;
        assert_eq!(header(&head, "content-length"), Some(body().len().to_string().as_str()), "{head}");
        assert_eq!(header(&head, "etag"), Some("\"x\""), "{head}");
        assert_eq!(header(&head, "vary"), Some("accept-encoding"), "{head}");
        assert_eq!(header(&head, "content-encoding"), None, "{head}");
    }
    let old = ask(site.address, "GET / HTTP/1.0\r\nhost: a\r\naccept-encoding: gzip\r\n\r\n").await;
    assert!(old.header("content-encoding").is_none() && old.body == body());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_gain_stays_as_it_is() {
    for (header, length) in [
        ("content-type: image/png", 5000),
        ("content-type: text/html\r\ncontent-encoding: br", 5000),
        ("content-type: text/html\r\ncache-control: no-transform", 5000),
        ("content-type: text/html", 1023),
    ] {
        let backend = answering(header, vec![b'x'; length]).await;
        let site = Site::start(compressing("true"), ready(backend.address)).await;
        let response = accepting(&site, "GET", "gzip, br, zstd").await;
        assert_eq!(response.body, vec![b'x'; length], "{header}");
        assert_eq!(response.header("content-length"), Some(length.to_string().as_str()));
        assert_eq!(response.header("vary"), None, "{header}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_without_compression_compresses_nothing() {
    let backend = answering("content-type: text/html", body()).await;
    let site = Site::start(compressing("false"), ready(backend.address)).await;
    assert!(accepting(&site, "GET", "gzip").await.body == body());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_s_pieces_come_as_they_are_sent() {
    let (pieces, inbox) = mpsc::unbounded_channel::<&'static str>();
    let inbox = std::sync::Arc::new(tokio::sync::Mutex::new(inbox));
    let backend = Backend::start(move |mut connection| {
        let inbox = inbox.clone();
        async move {
            if connection.head().await.is_none() {
                return;
            }
            let header =
                "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
            connection.send(header).await;
            while let Some(piece) = inbox.lock().await.recv().await {
                connection.send(format!("{:x}\r\n{piece}\r\n", piece.len())).await;
            }
            connection.send("0\r\n\r\n").await;
        }
    })
    .await;
    let how = "{ types = ['text/event-stream'], algorithms = ['gzip'] }";
    let site = Site::start(compressing(how), ready(backend.address)).await;
    let mut client = Client::connect(site.address).await;
    client.send("GET / HTTP/1.1\r\nhost: a\r\naccept-encoding: gzip\r\nconnection: close\r\n\r\n").await;
    pieces.send("data: 1\n\n").unwrap();
    let head = client.head().await;
    assert_eq!(header(&head, "content-encoding"), Some("gzip"), "{head}");
    let (mut decoder, mut text) = (flate2::write::GzDecoder::new(Vec::new()), String::new());
    for piece in ["data: 2\n\n", "data: 3\n\n"] {
        text.push_str(if piece.contains('2') { "data: 1\n\n" } else { "data: 2\n\n" });
        // The next is sent only when the one before has been read.
        while decoder.get_ref() != text.as_bytes() {
            let chunk = client.chunk().await.unwrap();
            std::io::Write::write_all(&mut decoder, &chunk).unwrap();
            std::io::Write::flush(&mut decoder).unwrap();
        }
        pieces.send(piece).unwrap();
    }
    drop(pieces);
    while let Some(chunk) = client.chunk().await {
        std::io::Write::write_all(&mut decoder, &chunk).unwrap();
    }
    assert_eq!(decoder.finish().unwrap(), b"data: 1\n\ndata: 2\n\ndata: 3\n\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn http2_has_no_chunks() {
    let backend = answering("content-type: text/html", body()).await;
    let config = Config { routes: compressing("true").routes, ..knowing() };
    let site = Site::start(config, ready(backend.address)).await;
    let stream = TcpStream::connect(site.address).await.unwrap();
    let (mut client, connection) = within(h2::client::handshake(stream)).await.unwrap();
    let connection = tokio::spawn(connection);
    let request = http::Request::get("http://a/").header("accept-encoding", "gzip").body(()).unwrap();
    let (response, _) = client.send_request(request, true).unwrap();
    let response = within(response).await.unwrap();
    assert_eq!(response.headers()["content-encoding"], "gzip");
    assert!(!response.headers().contains_key("transfer-encoding"), "{response:?}");
    let (mut stream, mut bytes) = (response.into_body(), Vec::new());
    while let Some(data) = within(stream.data()).await {
        let data = data.unwrap();
        stream.flow_control().release_capacity(data.len()).unwrap();
        bytes.extend_from_slice(&data);
    }
    let mut text = Vec::new();
    flate2::read::GzDecoder::new(&bytes[..]).read_to_end(&mut text).unwrap();
    assert!(text == body());
    connection.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_reads_what_it_asked_for() {
    let backend = answering("content-type: text/html", body()).await;
    for coding in ["gzip", "br", "zstd"] {
        let site =
            Site::start(compressing(&format!("{{ algorithms = ['{coding}'] }}")), ready(backend.address))
                .await;
        let url = format!("http://{}/", site.address);
        let curl = tokio::task::spawn_blocking(move || {
            let arguments =
                ["--silent", "--max-time", "8", "--compressed", "--dump-header", "/dev/stderr", &url];
            std::process::Command::new("curl").args(arguments).output().unwrap()
        });
        let output = within(curl).await.unwrap();
        let head = String::from_utf8(output.stderr).unwrap();
        assert_eq!(header(&head, "content-encoding"), Some(coding), "{head}");
        assert!(output.stdout == body(), "{coding}");
    }
}
