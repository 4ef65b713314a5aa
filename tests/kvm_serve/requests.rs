//! Requests that go well.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::support::{PATIENCE, Weir, one_pool};

const FROM_ZERO: &str = "min = 0\nmax = 4\nidle_timeout = \"300ms\"";
const KEPT: &str = "min = 1\nmax = 1\nidle_timeout = \"60s\"";

#[test]
fn a_vm_starts_for_a_request_and_is_gone_when_idle() {
    let mut weir = Weir::start(&one_pool("hello", "env = { GREETING = \"ahoy\" }", FROM_ZERO));
    assert_eq!(weir.metric("weir_vm_instances", ""), 0.0, "the pool starts at zero");

    let first = weir.curl(&["/"]);
    assert_eq!(first.status, 200, "{first:?}");
    assert!(first.body_text().contains("ahoy"), "{first:?}");
    // A template is being made, or has been.
    assert!(["cold", "clone"].contains(&weir.access_line()["start"].as_str().expect("how it started")));

    let second = weir.curl(&["/"]);
    assert_eq!(first.header("x-weir-vm"), second.header("x-weir-vm"), "the same VM, warm");
    assert_eq!(weir.access_line()["start"], "warm");

    weir.logged("vm stopped");
    assert_eq!(weir.metric("weir_vm_instances", ""), 0.0);
    assert_eq!(weir.metric("weir_vm_exits_total", "reason=\"stopped\""), 1.0);
}

#[test]
fn bodies_stream_both_ways() {
    let weir = Weir::start(&one_pool("hello", "", KEPT));
    let file = tempfile::NamedTempFile::new().expect("make a file");
    let body: Vec<u8> = (0..5_000_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    std::fs::write(file.path(), &body).expect("write the body");

    let from = format!("@{}", file.path().display());
    let echo = weir.curl(&["--data-binary", &from, "/echo"]);
    assert_eq!(echo.status, 200, "{}", echo.head);
    assert!(echo.body == body, "5 MB come back as they were sent ({} bytes)", echo.body.len());

    let chunked = weir.curl(&["-H", "transfer-encoding: chunked", "--data-binary", &from, "/echo"]);
    assert!(chunked.body == body, "also in chunks ({} bytes)", chunked.body.len());

    let download = weir.curl(&["/bytes?n=10000000"]);
    assert_eq!(download.body.len(), 10_000_000);
}

#[test]
fn pipelined_requests_are_answered_in_order_on_one_connection() {
    let weir = Weir::start(&one_pool("hello", "", KEPT));
    let mut stream = TcpStream::connect(weir.http).expect("connect");
    stream.set_read_timeout(Some(PATIENCE)).expect("set a timeout");
    stream
        .write_all(
            b"GET /bytes?n=1 HTTP/1.1\r\nhost: a\r\n\r\n\
              GET /bytes?n=2 HTTP/1.1\r\nhost: a\r\n\r\n\
              GET /bytes?n=3 HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
        )
        .expect("send");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("read");
    let text = text.to_lowercase();
    let lengths: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("content-length: ")).collect();
    assert_eq!(lengths, ["1", "2", "3"], "{text}");
}

#[test]
fn many_clients_share_few_vms_and_none_is_lost() {
    let weir = Weir::start(&one_pool(
        "hello",
        "soft_limit = 4\nhard_limit = 8",
        "min = 0\nmax = 3\nidle_timeout = \"60s\"",
    ));
    let clients: Vec<_> = (0..40)
        .map(|_| {
            let address = weir.http;
            std::thread::spawn(move || crate::support::get(address, "/sleep?ms=50").status)
        })
        .collect();
    for client in clients {
        assert_eq!(client.join().expect("no client panics"), 200);
    }
    let started = weir.metric("weir_vm_start_duration_seconds_count", "");
    assert!((1.0..=3.0).contains(&started), "never above max: {started}");
}

#[test]
fn unknown_routes_and_malformed_requests_start_nothing() {
    let config = one_pool("hello", "", FROM_ZERO).replace("path = \"/\"", "path = \"/only\"");
    let weir = Weir::start(&config);
    let answer = weir.curl(&["/elsewhere"]);
    assert_eq!((answer.status, answer.header("weir-error")), (404, Some("no_route")));
    assert_eq!(weir.metric("weir_vm_start_duration_seconds_count", ""), 0.0);
    // Counted a moment after its last byte.
    weir.until("it is counted", || weir.metric("weir_http_requests_total", "code=\"404\"") == 1.0);
}

#[test]
fn admin_tells_health_readiness_and_metrics() {
    let weir = Weir::start(&one_pool("hello", "", FROM_ZERO));
    assert_eq!(weir.admin("/healthz").0, 200);
    weir.until("weir is ready", || weir.admin("/readyz").0 == 200);
    let (status, metrics) = weir.admin("/metrics");
    assert_eq!(status, 200);
    assert!(metrics.contains("weir_build_info{"), "{metrics}");
}

#[test]
fn the_limit_of_open_files_is_raised_as_far_as_it_goes() {
    let weir = Weir::start(&one_pool("hello", "", FROM_ZERO));
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", weir.pid())).expect("read limits");
    let line = limits.lines().find(|line| line.starts_with("Max open files")).expect("the line is there");
    let words: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(words[3], words[4], "soft and hard: {line}");
}
