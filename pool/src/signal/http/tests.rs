use tokio::net::TcpListener;
use weir_config::model::Thousandths;

use super::*;
use crate::fake;

/// Patient, so that a slow machine is none of the things that are tested.
fn signal() -> Signal {
    Signal { timeout: Duration::from_secs(9), ..fake::signal("jobs", Thousandths(1000)) }
}

/// What [`scrape`] makes of a server that sends these pieces and closes, or else keeps the connection open.
async fn scraped(pieces: &[&[u8]], closes: bool, signal: &Signal) -> Result<f64, ScrapeError> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let pieces: Vec<Vec<u8>> = pieces.iter().map(|piece| piece.to_vec()).collect();
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            if stream.read_buf(&mut request).await.unwrap() == 0 {
                break;
            }
        }
        assert!(request.starts_with(b"GET /metrics HTTP/1.0\r\n"));
        for piece in pieces {
            // It may have heard enough.
            if stream.write_all(&piece).await.is_err() {
                return;
            }
        }
        if !closes {
            let _ = stream.read(&mut [0]).await;
        }
    });
    let outcome = scrape(address, signal).await;
    server.await.unwrap();
    outcome
}

async fn answered(answer: &str) -> Result<f64, ScrapeError> {
    scraped(&[answer.as_bytes()], true, &signal()).await
}

async fn label(answer: &str) -> &'static str {
    match answered(answer).await {
        Ok(_) => "ok",
        Err(error) => error.label(),
    }
}

#[tokio::test]
async fn a_value_is_read_with_and_without_a_length() {
    assert_eq!(answered("HTTP/1.1 200 OK\r\n\r\njobs 7\n").await.unwrap(), 7.0);
    assert_eq!(answered("HTTP/1.0 200\r\nContent-Length: 6\r\n\r\njobs 7").await.unwrap(), 7.0);
    let longer =
        "HTTP/1.1 200 OK\r\nContent-Length: 7\r\ncontent-encoding: identity\r\n\r\njobs 7\njobs 100\n";
    assert_eq!(answered(longer).await.unwrap(), 7.0, "what comes after it is not part of it");
    let pieces: Vec<&[u8]> = b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\njobs 7".chunks(1).collect();
    assert_eq!(scraped(&pieces, false, &signal()).await.unwrap(), 7.0, "nobody waits for the end");
}

#[tokio::test]
async fn what_is_no_answer_has_a_name() {
    let table = [
        ("", "bad_http"),
        ("SSH-2.0-OpenSSH\r\n", "bad_http"),
        ("HTTP/1.1 200 OK\r\n", "bad_http"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\njobs 7\n", "bad_http"),
        ("HTTP/1.1 200 OK\r\n\r\njobs 7\njobs 123", "bad_http"),
        ("HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\njobs 7\n", "bad_http"),
        ("HTTP/1.1 200 OK\r\ncontent-length: +7\r\n\r\njobs 7\n", "bad_http"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 7\r\ncontent-length: 8\r\n\r\njobs 7\n", "bad_http"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999\r\n\r\njobs 7\n", "bad_http"),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n7\r\njobs 7\n\r\n0\r\n\r\n", "bad_http"),
        ("HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\n\r\n\u{1f}", "bad_http"),
        ("HTTP/1.1 404 Not Found\r\n\r\njobs 7\n", "bad_status"),
        ("HTTP/1.1 302 Found\r\nlocation: /\r\n\r\n", "bad_status"),
        ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\njobs 7\n", "bad_status"),
        ("HTTP/1.1 200 OK\r\n\r\n<!DOCTYPE html>\n", "bad_text"),
        ("HTTP/1.1 200 OK\r\n\r\njobs NaN\n", "bad_text"),
        ("HTTP/1.1 200 OK\r\n\r\nothers 7\n", "missing"),
        ("HTTP/1.1 200 OK\r\n\r\n", "missing"),
    ];
    for (answer, expected) in table {
        assert_eq!(label(answer).await, expected, "{answer:?}");
    }
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\njobs 7\n", "a: b\r\n".repeat(HEADERS_MAX + 1));
    assert_eq!(label(&many).await, "bad_http");
    let long = format!("HTTP/1.1 200 OK\r\na: {}\r\n\r\njobs 7\n", "b".repeat(HEAD_MAX));
    assert_eq!(label(&long).await, "bad_http");
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    assert_eq!(scrape(nobody, &signal()).await.unwrap_err().label(), "unreachable");
}

#[tokio::test]
async fn a_body_without_end_is_left() {
    let head: &[u8] = b"HTTP/1.1 200 OK\r\n\r\n";
    let line = b"others 1\n".repeat(1000);
    let mut pieces = vec![head];
    pieces.extend(std::iter::repeat_n(&line[..], 500));
    let outcome = scraped(&pieces, false, &signal()).await;
    assert_eq!(outcome.unwrap_err().label(), "too_long");
    let line = b"#".repeat(100_000);
    let outcome = scraped(&[head, &line], false, &signal()).await;
    assert_eq!(outcome.unwrap_err().label(), "bad_text", "a line without end");
    let told: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2000000\r\n\r\n";
    let mut pieces = vec![told];
    pieces.extend(std::iter::repeat_n(&line[..], 20));
    assert!(scraped(&pieces, false, &signal()).await.is_err());
}

#[tokio::test]
async fn nobody_is_waited_for_longer_than_the_timeout() {
    let patience = Signal { timeout: Duration::from_millis(20), ..signal() };
    for pieces in [&[][..], &[&b"HTTP/1.1 200 OK\r\n"[..]], &[b"HTTP/1.1 200 OK\r\n\r\njobs 7\n"]] {
        let outcome = scraped(pieces, false, &patience).await;
        assert_eq!(outcome.unwrap_err().label(), "timeout", "{pieces:?}");
    }
}

#[test]
fn heads_are_read_whole_or_not_at_all() {
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n";
    for cut in 0..answer.len() {
        assert_eq!(Head::parse(&answer[..cut]).unwrap(), None, "{cut}");
    }
    let head = Head { end: answer.len(), length: Some(12) };
    assert_eq!(Head::parse(answer).unwrap(), Some(head));
}
