//! Requests that wait for a VM, and streams that keep one.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::client::Client;
use crate::support::{PATIENCE, Weir, one_pool};

const ONE_AT_A_TIME: &str = "soft_limit = 1\nhard_limit = 1\nqueue.timeout = \"60s\"";

#[test]
fn a_flood_of_one_client_does_not_keep_another_waiting() {
    const FLOOD: usize = 300;
    let mut weir = Weir::start(&one_pool("hello", ONE_AT_A_TIME, "min = 1\nmax = 1\nidle_timeout = \"60s\""));
    let mut flood: Vec<_> = (0..FLOOD).map(|_| Client::connect(weir.http)).collect();
    flood.iter_mut().for_each(|client| client.send("/sleep?ms=5"));
    weir.until("the flood waits", || weir.metric("weir_queue_depth", "class=\"default\"") > 200.0);
    for _ in 0..3 {
        assert_eq!(weir.curl(&["--interface", "127.0.0.2", "/other"]).status, 404);
    }
    // In the order in which they were served.
    let mut before = 0;
    for _ in 0..3 {
        while weir.access_line()["client"] != "127.0.0.2" {
            before += 1;
        }
    }
    assert!(before < FLOOD - 50, "{before} of the flood were served first");
}

#[test]
fn a_vm_with_an_open_stream_outlives_the_idle_timeout() {
    let weir = Weir::start(&one_pool("hello", ONE_AT_A_TIME, "min = 0\nmax = 2\nidle_timeout = \"300ms\""));
    let mut stream = TcpStream::connect(weir.http).expect("connect");
    stream.set_read_timeout(Some(PATIENCE)).expect("set a timeout");
    stream.write_all(b"POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nfirst").expect("send");
    weir.until("it has a VM", || weir.metric("weir_vm_instances", "state=\"ready\"") == 1.0);
    // The other VM, which this one gets, is idle for as long as the timeout after the stream's last byte.
    assert_eq!(Client::connect(weir.http).get("/").0, 200);
    weir.logged("vm stopped");
    assert_eq!(weir.metric("weir_vm_instances", "state=\"ready\""), 1.0, "the stream's is still there");
    stream.write_all(b"-last").expect("send");
    let mut answer = Vec::new();
    while !answer.ends_with(b"first-last") {
        let mut chunk = [0; 1024];
        let length = stream.read(&mut chunk).expect("read");
        assert_ne!(length, 0, "cut off after {:?}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&chunk[..length]);
    }
    assert_eq!(weir.metric("weir_vm_exits_total", ""), 1.0);
    weir.logged("vm stopped");
}
