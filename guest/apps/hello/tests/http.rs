//! The server over an in-memory connection: answers, framing, hostile input.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::convert::Infallible;
use std::fmt::Display;
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use embedded_io_async::{ErrorType, Read, Write};
use hello::{App, Crash, HEAD_MAX, Platform, serve};
use proptest::prelude::*;

struct Fake;

impl Platform for Fake {
    fn vm(&self) -> impl Display {
        3
    }
    fn uptime(&self) -> Duration {
        Duration::from_millis(1500)
    }
    fn sleep(&self, _duration: Duration) -> impl Future<Output = ()> {
        std::future::ready(())
    }
    fn spin(&self, _duration: Duration) {}
    fn crash(&self, how: Crash) -> ! {
        panic!("crash: {how:?}")
    }
    fn heap_used(&self) -> u64 {
        4096
    }
}

/// A client that has said everything it will ever say.
struct Script<'a> {
    input: &'a [u8],
    /// At most so many bytes per read.
    step: usize,
    output: Vec<u8>,
}

impl ErrorType for Script<'_> {
    type Error = Infallible;
}

impl Read for Script<'_> {
    async fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Infallible> {
        let count = self.input.len().min(self.step).min(buffer.len());
        let (now, later) = self.input.split_at(count);
        buffer[..count].copy_from_slice(now);
        self.input = later;
        Ok(count)
    }
}

impl Write for Script<'_> {
    async fn write(&mut self, buffer: &[u8]) -> Result<usize, Infallible> {
        self.output.extend_from_slice(buffer);
        Ok(buffer.len())
    }
    async fn flush(&mut self) -> Result<(), Infallible> {
        Ok(())
    }
}

/// What the server says to `input`, of which it gets `step` bytes at a time.
fn answer_in_steps(input: &[u8], step: usize) -> String {
    let mut script = Script { input, step, output: Vec::new() };
    let app = App::new("hi");
    {
        let mut future = pin!(serve(&mut script, &app, &Fake));
        let Poll::Ready(()) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) else {
            panic!("nothing here waits")
        };
    }
    String::from_utf8_lossy(&script.output).into_owned()
}

fn answer(input: impl AsRef<[u8]>) -> String {
    answer_in_steps(input.as_ref(), usize::MAX)
}

/// The status of the only answer to a request with this line and these fields.
fn status(line: &str, fields: &str) -> u16 {
    let answer = answer(format!("{line}\r\n{fields}\r\n"));
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
    answer[9..12].parse().unwrap()
}

#[test]
fn greeting_comes_whole() {
    let expected = "HTTP/1.1 200 OK\r\ncontent-type: text/plain; charset=utf-8\r\nx-weir-vm: 3\r\n\
                    content-length: 24\r\n\r\nhi from vm 3, request 1\n";
    assert_eq!(answer("GET / HTTP/1.1\r\nHost: a\r\n\r\n"), expected);
    assert_eq!(answer("GET http://a/?x=1 HTTP/1.1\r\nHost: a\r\n\r\n"), expected);
    let head = answer("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(head, expected[..expected.len() - 24]);
}

#[test]
fn paths_methods_and_queries_have_their_statuses() {
    let host = "Host: a\r\n";
    for (line, expected) in [
        ("GET /nothing HTTP/1.1", 404),
        ("OPTIONS * HTTP/1.1", 404),
        ("POST / HTTP/1.1", 405),
        ("GET /echo HTTP/1.1", 405),
        ("GET /bytes HTTP/1.1", 400),
        ("GET /bytes?n=-1 HTTP/1.1", 400),
        ("GET /bytes?n=18446744073709551616 HTTP/1.1", 400),
        ("HEAD /bytes?n=18446744073709551615 HTTP/1.1", 200),
        ("GET /sleep?ms=5 HTTP/1.1", 200),
        ("GET /spin?ms=5 HTTP/1.1", 200),
        ("GET /crash?how=badly HTTP/1.1", 400),
        ("GET /metrics HTTP/1.1", 200),
        ("POST /echo HTTP/1.1", 200),
        ("GET / HTTP/2.0", 400),
        ("GET /", 400),
    ] {
        assert_eq!(status(line, host), expected, "{line}");
    }
    assert!(answer("POST / HTTP/1.1\r\nHost: a\r\n\r\n").contains("\r\nallow: GET, HEAD\r\n"));
}

#[test]
fn metrics_are_counted_by_path() {
    let request = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let answer = answer([request, request, "GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n"].concat());
    for line in [
        "hello_requests_total{path=\"/\"} 2\n",
        "hello_uptime_seconds 1.500\n",
        "hello_heap_used_bytes 4096\n",
    ] {
        assert!(answer.contains(line), "{answer}");
    }
}

#[test]
fn ambiguous_framing_is_refused() {
    for fields in [
        "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
        "Content-Length: 1\r\nContent-Length: 1\r\n",
        "Content-Length: 1, 1\r\n",
        "Content-Length: +1\r\n",
        "Content-Length: \r\n",
        "Content-Length: 0x1\r\n",
        "Content-Length: 18446744073709551616\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding : chunked\r\n",
        "Host: b\r\n",
        " folded: line\r\n",
    ] {
        assert_eq!(status("POST /echo HTTP/1.1", &format!("Host: a\r\n{fields}")), 400, "{fields}");
    }
    assert_eq!(status("POST /echo HTTP/1.1", ""), 400);
    assert_eq!(status("POST /echo HTTP/1.0", "Transfer-Encoding: chunked\r\n"), 400);
    assert_eq!(status("GET / HTTP/1.0", ""), 200);
}

#[test]
fn head_of_eight_kibibytes_is_taken_and_a_longer_one_refused() {
    let head = |length: usize| {
        let start = "GET / HTTP/1.1\r\nHost: a\r\nX: ";
        format!("{start}{}\r\n\r\n", "x".repeat(length - start.len() - 4))
    };
    assert!(answer(head(HEAD_MAX)).starts_with("HTTP/1.1 200 "));
    let long = answer(head(HEAD_MAX + 1));
    assert!(long.starts_with("HTTP/1.1 400 ") && long.contains("connection: close"), "{long}");
}

#[test]
fn connections_stay_open_or_end_as_asked() {
    let twice = |request: &str| answer(request.repeat(2)).matches("HTTP/1.1 200 OK").count();
    assert_eq!(twice("GET / HTTP/1.1\r\nHost: a\r\n\r\n"), 2);
    assert_eq!(twice("GET / HTTP/1.1\r\nHost: a\r\nConnection: x, Close\r\n\r\n"), 1);
    assert_eq!(twice("GET / HTTP/1.0\r\n\r\n"), 1);
    assert_eq!(twice("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n"), 2);
    // A body that nobody reads is skipped, and the next request found behind it.
    assert_eq!(twice("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nGET /"), 2);
    let large = format!("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n{}", "x".repeat(100_000));
    assert_eq!(twice(&large), 1);
}

#[test]
fn echo_keeps_the_framing_and_says_continue() {
    let plain = answer("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
    assert!(plain.starts_with("HTTP/1.1 100 Continue\r\n\r\n"), "{plain}");
    let early =
        answer("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhello");
    assert!(
        early.starts_with("HTTP/1.1 200 OK") && early.ends_with("content-length: 5\r\n\r\nhello"),
        "{early}"
    );
    let chunked = answer(
        "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n5;x=y\r\nhello\r\n1\r\n!\r\n0\r\nT: r\r\n\r\n",
    );
    assert!(
        chunked.ends_with("transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n"),
        "{chunked}"
    );
    let refused = answer("GET /no HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
    assert!(refused.starts_with("HTTP/1.1 404") && refused.contains("connection: close"), "{refused}");
}

#[test]
fn broken_chunks_are_refused_or_end_the_answer_short() {
    let post = "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let refused = answer(format!("{post}zz\r\n"));
    assert!(refused.starts_with("HTTP/1.1 400 ") && refused.matches("HTTP/1.1").count() == 1, "{refused}");
    let short = answer(format!("{post}1\r\na\r\nzz\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"));
    assert!(short.ends_with("1\r\na\r\n") && short.matches("HTTP/1.1").count() == 1, "{short}");
}

/// A request and the start of its answer.
fn request() -> impl Strategy<Value = (String, String)> {
    // No letter that could be part of a chunk's size.
    let body = "[g-z]{1,300}";
    prop_oneof![
        Just(("GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), "200 OK".to_owned())),
        Just(("GET /no HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), "404 Not Found".to_owned())),
        (1u32..40_000).prop_map(|n| (
            format!("GET /bytes?n={n} HTTP/1.1\r\nHost: a\r\n\r\n"),
            format!("content-length: {n}\r\n")
        )),
        body.prop_map(|body| {
            let head = format!("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len());
            (head + &body, format!("\r\n\r\n{body}"))
        }),
        body.prop_map(|body| {
            let head = "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
            (format!("{head}{:x}\r\n{body}\r\n0\r\n\r\n", body.len()), body)
        }),
    ]
}

/// An answer's bytes, with the boundaries of chunks, which may fall anywhere, taken out.
fn without_chunks(answer: &str) -> String {
    answer
        .split("\r\n")
        .filter(|line| line.is_empty() || !line.bytes().all(|byte| byte.is_ascii_hexdigit()))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn pipelined_requests_are_answered_in_order(requests in proptest::collection::vec(request(), 1..8), step in 1usize..200) {
        let input: String = requests.iter().map(|(request, _)| request.as_str()).collect();
        let answer = answer_in_steps(input.as_bytes(), step);
        let mut answers = answer.split("HTTP/1.1 ").skip(1);
        for (_, expected) in &requests {
            let next = answers.next().unwrap_or_default();
            let body: String = next.split("\r\n\r\n").skip(1).flat_map(|body| body.chars()).filter(|letter| matches!(letter, 'g'..='z')).collect();
            prop_assert!(next.contains(expected.as_str()) || body.contains(expected.as_str()), "{next:?}, {expected:?}");
        }
        prop_assert_eq!(answers.next(), None);
    }

    #[test]
    fn arbitrary_bytes_never_panic(input in proptest::collection::vec(any::<u8>(), 0..400), step in 1usize..50) {
        answer_in_steps(&input, step);
    }

    #[test]
    fn damaged_requests_never_panic(
        requests in proptest::collection::vec(request(), 1..4), at in any::<prop::sample::Index>(), byte: u8, step in 1usize..500,
    ) {
        let mut input: Vec<u8> = requests.iter().flat_map(|(request, _)| request.bytes()).collect();
        let at = at.index(input.len());
        input[at] = byte;
        answer_in_steps(&input, step);
    }
}

#[test]
fn answers_do_not_depend_on_how_requests_arrive() {
    let input = "GET / HTTP/1.1\r\nHost: a\r\n\r\nPOST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
                 3\r\nxyz\r\n0\r\n\r\nPOST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nuvwGET /bytes?n=9 HTTP/1.1\r\nHost: a\r\n\r\nrubbish";
    let whole = without_chunks(&answer(input));
    assert_eq!(whole.matches("HTTP/1.1 ").count(), 4);
    for step in 1..input.len() {
        let split = without_chunks(&answer_in_steps(input.as_bytes(), step));
        // Within a chunk the echo may be cut anywhere; its letters and everything around them stay.
        assert_eq!(split, whole, "{step}");
    }
}
