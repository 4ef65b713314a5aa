//! Frames through TAPs, and what becomes of them when a TAP is used again.

use std::collections::HashSet;
use std::io::ErrorKind;
use std::net::UdpSocket;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use weir_net::tap::TapLink;

use crate::frame::{self, Datagram, HEADER, PATIENCE};
use crate::pool;

/// A socket at the host's end of `tap`.
fn host_socket(tap: &TapLink) -> UdpSocket {
    let socket = UdpSocket::bind((tap.link().host, 0)).expect("a port");
    socket.set_read_timeout(Some(Duration::from_millis(PATIENCE.into()))).expect("a timeout");
    socket
}

fn port(socket: &UdpSocket) -> u16 {
    socket.local_addr().expect("bound").port()
}

/// Sees that a datagram gets from the guest to the host.
fn assert_guest_is_heard(tap: &TapLink) {
    let socket = host_socket(tap);
    let sent = Datagram::from_guest(tap, tap.link().host, port(&socket), "from the guest");
    frame::write(tap, &sent.encode());
    let mut buffer = [0; 64];
    let (length, peer) = socket.recv_from(&mut buffer).expect("a datagram");
    assert_eq!((&buffer[..length], peer), (b"from the guest".as_slice(), (tap.link().guest, 9).into()));
}

pub(crate) fn frame_from_host_reaches_guest_without_arp() {
    let tap = pool().acquire().expect("a tap");
    assert_eq!(tap.name(), "weir0");
    let socket = host_socket(&tap);
    socket.send_to(b"to the guest", (tap.link().guest, 9)).expect("sent");
    let link = tap.link();
    let expected = Datagram {
        from: (link.host_mac, link.host, port(&socket)),
        to: (link.guest_mac, link.guest, 9),
        payload: b"to the guest".to_vec(),
    };
    // The very first frame: nothing was asked before it.
    assert_eq!(Datagram::decode(&frame::read(&tap)), expected);
    assert_eq!(frame::try_read(&tap), None);
}

pub(crate) fn frame_from_guest_reaches_host() {
    let tap = pool().acquire().expect("a tap");
    assert_guest_is_heard(&tap);
    assert_eq!(frame::try_read(&tap), None);
}

pub(crate) fn reused_tap_delivers_nothing_old() {
    let pool = pool();
    let tap = pool.acquire().expect("a tap");
    let (name, old) = (tap.name().to_owned(), *tap.link());
    let socket = host_socket(&tap);
    // More than the device's queue holds.
    for _ in 0..1500 {
        socket.send_to(b"secret", (old.guest, 9)).expect("sent or dropped");
    }
    drop(tap);
    // What the kernel might send again has no way to go.
    let again = socket.send_to(b"secret", (old.guest, 9)).expect_err("no route");
    assert_eq!(again.kind(), ErrorKind::NetworkUnreachable);

    let tap = pool.acquire().expect("the tap again");
    assert_eq!(tap.name(), name);
    assert!(tap.link().host != old.host && tap.link().guest_mac != old.guest_mac);
    assert_eq!(frame::try_read(&tap), None);
    assert!(socket.send_to(b"secret", (old.guest, 9)).is_err());
    assert_eq!(frame::try_read(&tap), None);

    // And it works, both ways.
    host_socket(&tap).send_to(b"new", (tap.link().guest, 9)).expect("sent");
    assert_eq!(Datagram::decode(&frame::read(&tap)).payload, b"new");
    assert_guest_is_heard(&tap);
}

/// The kernel takes a guest's frames as they are: whatever they hold, the link goes on.
pub(crate) fn garbage_from_guest_stops_nothing() {
    let tap = pool().acquire().expect("a tap");
    let good = Datagram::from_guest(&tap, tap.link().host, 9, "good").encode();
    // xorshift64, as good as any: the same garbage each time.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for round in 0..4000 {
        let mut bytes = good.clone();
        let length = usize::try_from(random() % 1600).expect("small");
        bytes.resize(length.max(bytes.len() * usize::from(round % 2 == 0)), 0);
        for _ in 0..random() % 8 {
            let at = usize::try_from(random()).expect("64 bits") % bytes.len().max(1);
            if let Some(byte) = bytes.get_mut(at) {
                *byte = random().to_le_bytes()[0];
            }
        }
        match nix::unistd::write(tap.fd(), &bytes) {
            // A refused header, or none; no buffer for an absurd length.
            Ok(_) | Err(Errno::EINVAL | Errno::ENOMEM | Errno::EMSGSIZE | Errno::EFAULT) => {}
            Err(errno) => panic!("write of {} bytes: {errno}", bytes.len()),
        }
    }
    assert!(good.len() > HEADER);
    assert_guest_is_heard(&tap);
}

pub(crate) fn taps_are_never_shared_between_threads() {
    let pool = pool();
    let live = Mutex::new(HashSet::new());
    let turn = || {
        for _ in 0..25 {
            let tap = pool.acquire().expect("a tap");
            let own = [tap.name().to_owned(), tap.link().host.to_string()];
            for name in &own {
                assert!(live.lock().expect("no panic").insert(name.clone()), "{name} has two holders");
            }
            assert_eq!(frame::try_read(&tap), None);
            host_socket(&tap).send_to(own[1].as_bytes(), (tap.link().guest, 9)).expect("sent");
            assert_eq!(Datagram::decode(&frame::read(&tap)).payload, own[1].as_bytes());
            assert_guest_is_heard(&tap);
            for name in &own {
                live.lock().expect("no panic").remove(name);
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(turn);
        }
    });
}

/// A VM's process shares the open file, and so its flags, with weir and the next VM.
pub(crate) fn flags_set_by_a_former_user_do_not_last() {
    let pool = pool();
    let tap = pool.acquire().expect("a tap");
    let name = tap.name().to_owned();
    let process = tap.fd().try_clone_to_owned().expect("the process's descriptor");
    fcntl(&process, FcntlArg::F_SETFL(OFlag::O_ASYNC)).expect("blocking and asynchronous");
    drop(process);
    // A blocking one would hang here, until the case's limit.
    drop(tap);

    let tap = pool.acquire().expect("the same tap");
    assert_eq!(tap.name(), name);
    let flags = OFlag::from_bits_retain(fcntl(tap.fd(), FcntlArg::F_GETFL).expect("flags"));
    assert!(flags.contains(OFlag::O_NONBLOCK) && !flags.contains(OFlag::O_ASYNC), "{flags:?}");
}
