//! The example guest, end to end.

use std::io::Write;
use std::net::Shutdown;
use std::thread;

use weir_guest::HELLO;
use weir_net::tap::TapPool;
use weir_vmm::{CrashReason, ExitReason};

use super::Case;
use super::client::{self, Client};
use super::vm::{ID, Vm};

pub(crate) const CASES: &[Case] = &[
    ("hello_greets_and_counts", greets_and_counts),
    ("hello_answers_pipelined_requests_in_order", answers_pipelined_requests_in_order),
    ("hello_echoes_more_than_all_buffers_hold", echoes_more_than_all_buffers_hold),
    ("hello_streams_bytes", streams_bytes),
    ("hello_goes_on_while_a_request_sleeps", goes_on_while_a_request_sleeps),
    ("hello_takes_many_connections_at_once", takes_many_connections_at_once),
    ("hello_reuses_what_short_connections_leave", reuses_what_short_connections_leave),
    ("hello_keeps_a_half_closed_connection_open", keeps_a_half_closed_connection_open),
    ("hello_crashes_on_request", crashes_on_request),
];

fn greets_and_counts(taps: &TapPool) {
    let vm = Vm::ready(taps, HELLO, &[]);
    for count in 1..=3 {
        let response = client::get(vm.address(), "/");
        assert_eq!(response.text(), format!("good morning from vm {ID}, request {count}\n"));
        assert!(response.head.contains(&format!("x-weir-vm: {ID}\r\n")), "{}", response.head);
    }
    let metrics = client::get(vm.address(), "/metrics");
    assert!(metrics.text().contains("hello_requests_total{path=\"/\"} 3\n"), "{}", metrics.text());
    assert_eq!(client::get(vm.address(), "/nothing").status, 404);
    assert_eq!(vm.stop(), ExitReason::Stopped);
}

fn answers_pipelined_requests_in_order(taps: &TapPool) {
    let vm = Vm::ready(taps, HELLO, &[]);
    let mut client = Client::connect(vm.address());
    client.send("GET / HTTP/1.1\r\nhost: guest\r\n\r\n".repeat(100));
    for count in 1..=100 {
        assert!(client.response().text().ends_with(&format!("request {count}\n")));
    }
}

fn echoes_more_than_all_buffers_hold(taps: &TapPool) {
    let vm = Vm::ready(taps, HELLO, &[]);
    let body: Vec<u8> =
        (0..8 << 20).map(|at: u32| at.to_le_bytes()[usize::from(at.is_multiple_of(3))]).collect();
    let mut client = Client::connect(vm.address());
    let mut socket = client.socket();
    let sent = body.clone();
    let sender = thread::spawn(move || {
        write!(socket, "POST /echo HTTP/1.1\r\nhost: guest\r\ncontent-length: {}\r\n\r\n", sent.len())
            .unwrap();
        socket.write_all(&sent).unwrap();
    });
    assert!(client.response().body == body, "the body comes back as it was sent");
    sender.join().unwrap();
}

fn streams_bytes(taps: &TapPool) {
    let vm = Vm::ready(taps, HELLO, &[]);
    let response = client::get(vm.address(), "/bytes?n=20000000");
    assert!(response.body.len() == 20_000_000 && response.body.iter().all(|byte| *byte == b'w'));
}

fn goes_on_while_a_request_sleeps(taps: &TapPool) {
    let vm = Vm::ready(taps, HELLO, &[]);
    let mut sleeper = Client::connect(vm.address());
    sleeper.get("/sleep?ms=3600000");
    for count in 2..5 {
        // The sleeper's request was counted, so it is under way.
        assert_eq!(
            client::get(vm.address(), "/").text(),
            format!("good morning from vm {ID}, request {count}\n")
        );
    }
    assert_eq!(client::get(vm.address(), "/sleep?ms=1").text(), "slept\n");
    sleeper.socket().set_nonblocking(true).unwrap();
    assert!(sleeper.socket().peek(&mut [0]).is_err(), "nobody has slept for an hour");
}

fn takes_many_connections_at_once(taps: &TapPool) {
    let vm = Vm::ready(taps, HELLO, &[]);
    // All SYNs go out while the guest is busy with the first request: none of them may be refused.
    let mut busy = Client::connect(vm.address());
    busy.get("/spin?ms=20");
    let address = vm.address();
    let clients: Vec<_> = (0..80).map(|_| thread::spawn(move || client::get(address, "/").status)).collect();
    assert!(clients.into_iter().all(|client| client.join().unwrap() == 200));
    assert_eq!(busy.response().text(), "spun\n");
}

fn reuses_what_short_connections_leave(taps: &TapPool) {
    let vm = Vm::ready(taps, HELLO, &[]);
    // More than there are sockets; the guest closes first, so each of them goes through TIME-WAIT.
    for _ in 0..400 {
        let mut client = Client::connect(vm.address());
        client.send("GET / HTTP/1.1\r\nhost: guest\r\nconnection: close\r\n\r\n");
        let response = client.response();
        assert!(response.status == 200 && response.head.contains("connection: close"));
        assert_eq!(client.rest().unwrap(), b"");
    }
}

fn keeps_a_half_closed_connection_open(taps: &TapPool) {
    let vm = Vm::ready(taps, HELLO, &[]);
    let mut client = Client::connect(vm.address());
    client.get("/bytes?n=300000");
    client.socket().shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.response().body.len(), 300_000);
    assert_eq!(client.rest().unwrap(), b"");
}

fn crashes_on_request(taps: &TapPool) {
    let crash = |how: &str| {
        let vm = Vm::ready(taps, HELLO, &[]);
        Client::connect(vm.address()).get(&format!("/crash?how={how}"));
        vm.reason()
    };
    match crash("panic") {
        ExitReason::Panicked(text) => {
            assert!(text.starts_with("asked to at ") && text.contains("main.rs"), "{text}")
        }
        other => panic!("{other:?}"),
    }
    match crash("fault") {
        ExitReason::Faulted(text) => {
            assert!(text.starts_with("page fault: write to 0x10 at rip 0x2"), "{text}")
        }
        other => panic!("{other:?}"),
    }
    match crash("halt") {
        ExitReason::Faulted(text) => assert!(text.starts_with("general protection fault"), "{text}"),
        ExitReason::Crashed(CrashReason::UnexpectedExit(_)) => {}
        other => panic!("{other:?}"),
    }
}
