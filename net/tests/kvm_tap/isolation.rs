//! What a hostile guest cannot reach.

use std::fs;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};

use weir_net::tap::TapLink;

use crate::frame::{self, Datagram, HEADER};
use crate::{enter, pool};

/// A socket at `address` that does not wait.
fn silent_socket(address: Ipv4Addr) -> UdpSocket {
    let socket = UdpSocket::bind((address, 0)).expect("a port");
    socket.set_nonblocking(true).expect("non-blocking");
    socket
}

fn port(socket: &UdpSocket) -> u16 {
    socket.local_addr().expect("bound").port()
}

/// Returns when the kernel has dealt with all frames that were written to `tap` before: it takes them in order.
fn wait_until_processed(tap: &TapLink) {
    let socket = UdpSocket::bind((tap.link().host, 0)).expect("a port");
    frame::write(tap, &Datagram::from_guest(tap, tap.link().host, port(&socket), "marker").encode());
    let mut buffer = [0; 64];
    let length = socket.recv(&mut buffer).expect("the marker");
    assert_eq!(&buffer[..length], b"marker");
}

pub(crate) fn namespace_has_no_way_out() {
    let host = fs::read_link("/proc/self/ns/net").expect("the host's namespace");
    let _private = enter();
    assert_ne!(fs::read_link("/proc/self/ns/net").expect("the private namespace"), host);
    let devices = fs::read_to_string("/proc/net/dev").expect("devices");
    let names: Vec<&str> =
        devices.lines().skip(2).filter_map(|line| Some(line.split_once(':')?.0.trim())).collect();
    assert_eq!(names, ["lo"]);
    assert_eq!(fs::read_to_string("/proc/net/route").expect("routes").lines().count(), 1, "only a headline");
    let outside = UdpSocket::bind("0.0.0.0:0").expect("a port").connect("192.0.2.1:9").expect_err("no route");
    assert_eq!(outside.kind(), ErrorKind::NetworkUnreachable);
    for (setting, value) in [
        ("ipv4/ip_forward", "0"),
        ("ipv4/conf/all/rp_filter", "1"),
        ("ipv4/conf/default/rp_filter", "1"),
        ("ipv6/conf/default/disable_ipv6", "1"),
    ] {
        let is = fs::read_to_string(format!("/proc/sys/net/{setting}")).expect(setting);
        assert_eq!(is.trim(), value, "{setting}");
    }
}

pub(crate) fn listener_bound_before_is_out_of_reach() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    drop(TcpStream::connect(address).expect("reachable in its own namespace"));
    let _private = enter();
    assert_eq!(TcpStream::connect(address).expect_err("out of reach").kind(), ErrorKind::ConnectionRefused);
    // It still belongs to the other namespace, where it has its client waiting.
    listener.accept().expect("the client of before");
}

pub(crate) fn guest_reaches_no_other_link() {
    let pool = pool();
    let (a, b) = (pool.acquire().expect("a tap"), pool.acquire().expect("another tap"));
    let at_b = silent_socket(b.link().host);
    let at_a = silent_socket(a.link().host);
    let loopback = silent_socket(Ipv4Addr::LOCALHOST);

    let honest = |to: Ipv4Addr, port: u16| Datagram::from_guest(&a, to, port, "evil");
    let as_source = |source: Ipv4Addr, mut datagram: Datagram| {
        datagram.from.1 = source;
        datagram
    };
    let mut by_mac = honest(b.link().guest, 9);
    by_mac.to.0 = b.link().guest_mac;
    let mut broadcast = honest(Ipv4Addr::BROADCAST, port(&at_b));
    broadcast.to.0 = [0xff; 6];
    for datagram in [
        // To the other guest, through the router that is none, and past it.
        honest(b.link().guest, 9),
        by_mac,
        broadcast,
        // In the other guest's name, to where only that one may speak, and to its own end.
        as_source(b.link().guest, honest(b.link().host, port(&at_b))),
        as_source(b.link().guest, honest(a.link().host, port(&at_a))),
        // In weir's own name, and from nowhere.
        as_source(b.link().host, honest(a.link().host, port(&at_a))),
        as_source(a.link().host, honest(a.link().host, port(&at_a))),
        as_source(Ipv4Addr::LOCALHOST, honest(a.link().host, port(&at_a))),
        as_source(Ipv4Addr::new(192, 0, 2, 1), honest(a.link().host, port(&at_a))),
        as_source(Ipv4Addr::UNSPECIFIED, honest(a.link().host, port(&at_a))),
        // To loopback.
        honest(Ipv4Addr::LOCALHOST, port(&loopback)),
        as_source(Ipv4Addr::LOCALHOST, honest(Ipv4Addr::LOCALHOST, port(&loopback))),
    ] {
        frame::write(&a, &datagram.encode());
    }
    wait_until_processed(&a);
    for (socket, what) in
        [(&at_a, "spoofed to its own end"), (&at_b, "spoofed to the other"), (&loopback, "loopback")]
    {
        assert!(frame::is_silent(socket), "{what}");
    }
    assert_eq!(frame::try_read(&b), None, "a frame got across");
    // The other end itself does hear an honest packet (see the documentation of `namespace`), were there a socket.
    frame::write(&a, &honest(b.link().host, port(&at_b)).encode());
    wait_until_processed(&a);
    assert!(!frame::is_silent(&at_b), "the documentation of `namespace` says more than is true");
}

pub(crate) fn guest_gets_no_answer_to_arp() {
    let tap = pool().acquire().expect("a tap");
    let link = tap.link();
    let mut frame = vec![0; HEADER];
    frame.extend([0xff; 6]);
    frame.extend(link.guest_mac);
    // ARP request (RFC 826): Ethernet, IPv4, who has the host's address?
    frame.extend([0x08, 0x06, 0, 1, 0x08, 0x00, 6, 4, 0, 1]);
    frame.extend(link.guest_mac);
    frame.extend(link.guest.octets());
    frame.extend([0; 6]);
    frame.extend(link.host.octets());
    frame::write(&tap, &frame);
    wait_until_processed(&tap);
    assert_eq!(frame::try_read(&tap), None);
    let neighbours = fs::read_to_string("/proc/net/arp").expect("neighbours");
    assert_eq!(neighbours.lines().count(), 2, "a headline and the permanent entry: {neighbours}");
}
