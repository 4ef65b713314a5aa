//! The real system calls, on a socket pair that keeps message boundaries as a TAP does.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;

use virtio_bindings::virtio_mmio as register;

use super::driver::{BUFFERS, Driver, WRITE};
use super::{NOISE, frame_to_guest, frame_to_host, with_header};
use crate::virtio::Tap;
use crate::virtio::net::{RX, TX};

fn on_socket() -> (Driver<Tap>, UnixDatagram) {
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    theirs.set_nonblocking(true).unwrap();
    let mut driver = Driver::fresh(Tap::new(OwnedFd::from(ours)));
    driver.start(16);
    (driver, theirs)
}

#[test]
fn frames_pass_both_ways_in_pieces() {
    let (mut driver, host) = on_socket();
    let (sent, received) = (frame_to_host(1514, 1), frame_to_guest(1514, 2));
    driver.put(BUFFERS, &NOISE);
    driver.put(BUFFERS + 0x100, &sent[..700]);
    driver.put(BUFFERS + 0x1000, &sent[700..]);
    driver.offer(TX, 0, &[(BUFFERS, 12), (BUFFERS + 0x100, 700), (BUFFERS + 0x1000, 814)], 0);
    host.send(&with_header([0; 12], &received)).unwrap();
    driver.offer(RX, 0, &[(BUFFERS + 0x2000, 20), (BUFFERS + 0x3000, 1), (BUFFERS + 0x4000, 1505)], WRITE);

    let progress = driver.service().unwrap();
    assert_eq!((progress.tx_completed, progress.rx_delivered), (1, 1));
    let mut buffer = [0; 4096];
    let length = host.recv(&mut buffer).unwrap();
    assert_eq!(buffer[..length], with_header([0; 12], &sent));
    assert_eq!(driver.take_used(RX), [(0, 1526)]);
    assert_eq!(driver.get(BUFFERS + 0x4000, 1505), received[9..]);
    assert!(driver.transport.readable_fd().is_none());
}

#[test]
fn without_a_tap_no_offloads_are_offered() {
    let (mut driver, _host) = on_socket();
    driver.write(register::VIRTIO_MMIO_DEVICE_FEATURES_SEL, 0).unwrap();
    let offered = driver.read(register::VIRTIO_MMIO_DEVICE_FEATURES);
    assert_eq!(offered, 1 << 3 | 1 << 5 | 1 << 15 | 1 << 16, "MTU, MAC, MRG_RXBUF, STATUS");
}

#[test]
fn a_frame_that_is_cut_is_told_from_one_that_fits() {
    let (mut driver, host) = on_socket();
    host.send(&with_header([0; 12], &frame_to_guest(1515, 0))).unwrap();
    host.send(&with_header([0; 12], &frame_to_guest(1514, 1))).unwrap();
    driver.offer(RX, 0, &[(BUFFERS, 0x1000)], WRITE);
    assert_eq!(driver.service().unwrap().rx_delivered, 1);
    assert_eq!(driver.get(BUFFERS + 12, 1514), frame_to_guest(1514, 1));
    assert_eq!(driver.transport.device().counters().rx_dropped_length, 1);
}

#[test]
fn a_full_socket_keeps_frames_in_the_ring() {
    let (mut driver, host) = on_socket();
    let frame = with_header([0; 12], &frame_to_host(1514, 0));
    driver.put(BUFFERS, &frame);
    let mut offered = 0;
    // A socket's buffer holds some hundred frames at most; the bound is far above.
    while driver.transport.writable_fd().is_none() && offered < 10_000 {
        driver.offer(TX, (offered % 16) as u16, &[(BUFFERS, frame.len() as u32)], 0);
        offered += 1;
        driver.service().unwrap();
    }
    let taken = driver.take_used(TX).len();
    assert!(driver.transport.writable_fd().is_some());
    let mut buffer = [0; 4096];
    host.recv(&mut buffer).unwrap();
    assert_eq!(driver.service().unwrap().tx_completed, 1);
    assert!(driver.transport.writable_fd().is_none());
    assert_eq!(driver.transport.device().counters().tx_frames, offered);
    assert!(taken < 10_000);
}
