//! Offloads, with the kernel that they are for.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use weir_net::tap::TapLink;
use weir_vmm::virtio::Tap;
use weir_vmm::virtio::net::{FrameIo, Offloads};

use crate::driver::Driver;
use crate::pool;
use crate::tcp::{ACK, Arrived, Connection, FIN, PUSH};

const VERSION_1: u64 = 1 << 32;
/// CSUM, GUEST_CSUM, GUEST_TSO4, HOST_TSO4, MRG_RXBUF.
const OFFLOADS: u64 = 1 << 0 | 1 << 1 | 1 << 7 | 1 << 11 | 1 << 15;
/// Longest frame that fits the MTU.
const WHOLE: usize = 1514;

/// A header that leaves checksum and segmentation to the host.
fn unfinished(data: usize) -> [u8; 12] {
    let segmented = u8::from(data > 1460);
    [1, segmented, 54, 0, 0xb4, 5, 34, 0, 16, 0, 0, 0]
}

/// A header that leaves nothing to the host.
fn finished(_: usize) -> [u8; 12] {
    [0; 12]
}

fn data(length: usize) -> Vec<u8> {
    (0..length).map(|at| ((at * 31) >> 3) as u8).collect()
}

/// A connection from the guest of `tap`, that uses `header`, to the host.
fn connect<'d>(
    driver: &'d mut Driver,
    tap: &'d TapLink,
    header: fn(usize) -> [u8; 12],
) -> (Connection<'d>, TcpStream) {
    let listener = TcpListener::bind((tap.link().host, 0)).expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let connection = Connection::open(driver, tap, port, header);
    let (stream, _) = listener.accept().expect("the guest");
    (connection, stream)
}

/// Has the host send `length` bytes at once; the frames in which they came, their content checked.
fn download(connection: &mut Connection<'_>, stream: &mut TcpStream, length: usize) -> Vec<Arrived> {
    stream.write_all(&data(length)).expect("room in the socket");
    let (mut frames, mut received) = (Vec::new(), Vec::<u8>::new());
    while received.len() < length {
        let frame = connection.receive();
        received.extend(&frame.payload);
        frames.push(frame);
    }
    assert!(received == data(length), "another content");
    frames
}

pub(crate) fn segments_go_both_ways_in_one_frame() {
    let pool = pool();
    let tap = pool.acquire().expect("a tap");
    let mut driver = Driver::start(&tap, VERSION_1 | OFFLOADS);
    let (mut connection, mut stream) = connect(&mut driver, &tap, unfinished);

    connection.send(ACK | PUSH, &data(20_000));
    let mut received = vec![0; 20_000];
    stream.read_exact(&mut received).expect("all of it");
    assert!(received == data(20_000), "another content");

    let frames = download(&mut connection, &mut stream, 40_000);
    let long: Vec<_> = frames.iter().filter(|frame| frame.length > WHOLE).collect();
    assert!(!long.is_empty(), "the host cut all {} frames itself", frames.len());
    for frame in long {
        assert_eq!(frame.header[..2], [1, 1], "checksum needed, TCP over IPv4");
        let buffers = u16::from_le_bytes([frame.header[10], frame.header[11]]);
        assert_eq!(usize::from(buffers), (12 + frame.length).div_ceil(2048));
    }
    connection.send(FIN | ACK, &[]);
    assert_eq!(stream.read(&mut [0; 1]).expect("the end"), 0);
    assert_eq!(
        (
            driver.transport.device().counters().tx_dropped(),
            driver.transport.device().counters().rx_dropped()
        ),
        (0, 0)
    );
}

pub(crate) fn without_offloads_every_frame_fits_the_mtu() {
    let pool = pool();
    let tap = pool.acquire().expect("a tap");
    let mut driver = Driver::start(&tap, VERSION_1);
    let (mut connection, mut stream) = connect(&mut driver, &tap, finished);
    let frames = download(&mut connection, &mut stream, 40_000);
    for frame in frames {
        assert!(frame.length <= WHOLE);
        assert_eq!(frame.header, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0], "and has its checksum");
    }
}

pub(crate) fn the_next_vm_gets_a_tap_without_offloads() {
    let pool = pool();
    let tap = pool.acquire().expect("a tap");
    let name = tap.name().to_owned();
    let mut process = Tap::new(tap.fd().try_clone_to_owned().expect("the process's descriptor"));
    process.set_offloads(Offloads { checksum: true, tcp4: true }).expect("a tap");
    drop(process);
    drop(tap);

    let tap = pool.acquire().expect("the same tap");
    assert_eq!(tap.name(), name);
    // A reader that knows nothing of offloads, and so says nothing about them to the kernel either.
    let mut plain = Tap::new(tap.fd().try_clone_to_owned().expect("a descriptor"));
    let socket = std::net::UdpSocket::bind((tap.link().host, 0)).expect("a port");
    socket.send_to(b"to the guest", (tap.link().guest, 9)).expect("sent");
    let mut frame = [0xff; 256];
    let length = plain.receive(&mut frame, &[]).expect("a frame, at once: the kernel sends it in send_to");
    assert_eq!(length, 12 + 14 + 20 + 8 + 12);
    assert_eq!(frame[..10], [0; 10], "the kernel has computed the checksum");
}
