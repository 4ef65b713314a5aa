//! WebSockets to real guests: they hold their VM's lease, whatever happens to the pool meanwhile.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

use crate::client::Client;
use crate::probe::probe;
use crate::rollout::{run, vms};
use crate::support::{PATIENCE, Weir};

/// Opcodes, RFC 6455 section 5.2, of whole messages.
const TEXT: u8 = 0x81;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const PONG: u8 = 0x8a;

/// A client's end of a WebSocket to a guest that sends back what it gets.
struct WebSocket(TcpStream);

impl WebSocket {
    fn open(weir: &Weir) -> Self {
        let mut stream = TcpStream::connect(weir.http).expect("connect");
        stream.set_read_timeout(Some(PATIENCE)).expect("set a timeout");
        // The example of RFC 6455, section 1.3.
        let request = "GET /websocket HTTP/1.1\r\nhost: a\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        stream.write_all(request.as_bytes()).expect("ask");
        let mut socket = Self(stream);
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.extend_from_slice(&socket.exactly(1));
        }
        let head = String::from_utf8(head).expect("a head is text").to_lowercase();
        assert!(head.starts_with("http/1.1 101 "), "{head}");
        assert!(head.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=\r\n"), "{head}");
        socket
    }

    fn send(&mut self, first: u8, payload: &[u8]) {
        const MASK: [u8; 4] = [0xde, 0xad, 0xbe, 0xef];
        let length = u16::try_from(payload.len()).expect("a length of two bytes").to_be_bytes();
        let mut frame = vec![first, 0x80 | 126];
        frame.extend_from_slice(&length);
        frame.extend_from_slice(&MASK);
        frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        self.0.write_all(&frame).expect("send");
    }

    /// The next frame: its first byte and its payload.
    fn receive(&mut self) -> (u8, Vec<u8>) {
        let start = self.exactly(2);
        let length = match start[1] {
            126 => usize::from(u16::from_be_bytes(self.exactly(2).try_into().expect("two bytes"))),
            short => usize::from(short),
        };
        (start[0], self.exactly(length))
    }

    /// That messages go there and come back.
    fn echoes(&mut self) {
        for payload in [vec![b'a'; 5], vec![b'b'; 40_000]] {
            self.send(TEXT, &payload);
            assert!(self.receive() == (TEXT, payload), "sent back as it was");
        }
        self.send(PING, b"there?");
        assert_eq!(self.receive(), (PONG, b"there?".to_vec()));
    }

    /// Takes leave, and sees the other side close the connection.
    fn close(mut self) {
        self.send(CLOSE, &1000u16.to_be_bytes());
        assert_eq!(self.receive(), (CLOSE, 1000u16.to_be_bytes().to_vec()));
        assert_eq!(self.0.read(&mut [0]).expect("read the end"), 0);
    }

    fn exactly(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.0.read_exact(&mut bytes).expect("read");
        bytes
    }
}

fn count(weir: &Weir, state: &str) -> f64 {
    weir.metric("weir_vm_instances", &format!("state=\"{state}\""))
}

#[test]
fn a_websocket_outlives_the_idle_timeout_and_its_vm_does_not_outlive_it() {
    let limits = "soft_limit = 1\nhard_limit = 1";
    let (_file, config) = probe("\"serve\"", limits, "min = 0\nmax = 2\nidle_timeout = \"300ms\"");
    let weir = Weir::start(&config);
    let mut socket = WebSocket::open(&weir);
    socket.echoes();
    // The other VM, which this one gets, is idle for as long as the timeout after the socket's last byte.
    assert_eq!(Client::connect(weir.http).get("/").0, 200);
    weir.logged("vm stopped");
    assert_eq!((count(&weir, "ready"), weir.metric("weir_vm_exits_total", "")), (1.0, 1.0));
    socket.echoes();
    socket.close();
    weir.logged("vm stopped");
    assert_eq!(weir.metric("weir_vm_exits_total", "reason=\"stopped\""), 2.0);
    assert_eq!(weir.metric("weir_http_requests_total", "code=\"101\""), 1.0);
}

#[test]
fn a_client_that_goes_away_without_a_word_gives_its_vm_up() {
    let (_file, config) = probe("\"serve\"", "", "min = 0\nmax = 1\nidle_timeout = \"100ms\"");
    let weir = Weir::start(&config);
    let mut socket = WebSocket::open(&weir);
    socket.echoes();
    socket.0.shutdown(Shutdown::Both).expect("leave");
    weir.logged("vm stopped");
    assert_eq!(weir.metric("weir_http_requests_in_flight", ""), 0.0);
}

#[test]
fn a_restart_and_a_drain_wait_for_websockets() {
    let (_file, config) = probe("\"serve\"", "", "min = 1\nmax = 4\nidle_timeout = \"60s\"");
    let weir = Weir::start(&config);
    weir.until_templates(1);
    let mut first = WebSocket::open(&weir);
    let before = vms(&weir);
    let (code, _, errors) = run(weir.admin, &["restart", "p", "--no-wait"]);
    assert_eq!(code, Some(0), "{errors}");
    weir.until("its VM is draining, and has a successor", || {
        (count(&weir, "draining"), count(&weir, "ready")) == (1.0, 1.0)
    });
    first.echoes();
    let mut second = WebSocket::open(&weir);
    let (code, out, errors) = run(weir.admin, &["drain", "p", "--no-wait"]);
    assert_eq!((code, out.as_str()), (Some(0), "p: drain begun, vms 1\n"), "{errors}");
    weir.until("both are draining", || count(&weir, "draining") == 2.0);
    for socket in [&mut first, &mut second] {
        socket.echoes();
    }
    assert!(vms(&weir).is_superset(&before));
    first.close();
    weir.until("one has gone", || count(&weir, "draining") == 1.0);
    second.echoes();
    second.close();
    let (code, out, errors) = run(weir.admin, &["drain", "p"]);
    assert_eq!(code, Some(0), "{out}{errors}");
    assert_eq!(count(&weir, "draining"), 0.0);
    assert!(vms(&weir).is_disjoint(&before));
}
