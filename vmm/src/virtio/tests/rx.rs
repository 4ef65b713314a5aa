//! From the host to the guest.

use std::io::ErrorKind;

use virtio_bindings::virtio_mmio as register;

use super::driver::{BUFFERS, Driver, WRITE};
use super::{NOISE, frame_to_guest, with_header};
use crate::virtio::net::{NetCounters, RX};
use crate::virtio::{DeviceError, Progress};

/// The header that every received frame has: one buffer, no offloads.
const RECEIVED: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0];

#[test]
fn a_frame_arrives_with_a_header_of_our_own() {
    let (mut driver, wire) = Driver::on_wire(16);
    let frame = frame_to_guest(1514, 9);
    wire.borrow_mut().to_guest.push_back(with_header(NOISE, &frame));
    driver.offer(RX, 5, &[(BUFFERS, 1526)], WRITE);
    let progress = driver.service().unwrap();
    assert_eq!(progress, Progress { rx_delivered: 1, tx_completed: 0, wake: true, more: false });
    assert_eq!(driver.take_used(RX), [(5, 1526)]);
    assert_eq!(driver.get(BUFFERS, 1526), with_header(RECEIVED, &frame));
    let expected = NetCounters { rx_frames: 1, rx_bytes: 1514, ..NetCounters::default() };
    assert_eq!(driver.transport.device().counters(), &expected);
    assert_eq!(driver.read(register::VIRTIO_MMIO_INTERRUPT_STATUS), 1);
    driver.write(register::VIRTIO_MMIO_INTERRUPT_ACK, 1).unwrap();
    assert_eq!(driver.read(register::VIRTIO_MMIO_INTERRUPT_STATUS), 0);
}

#[test]
fn the_host_is_only_polled_while_there_are_buffers() {
    let (mut driver, wire) = Driver::on_wire(16);
    assert!(driver.transport.readable_fd().is_none());
    wire.borrow_mut().to_guest.extend((0..3).map(|seed| with_header([0; 12], &frame_to_guest(60, seed))));
    driver.service().unwrap();
    assert!(driver.transport.readable_fd().is_none());
    assert_eq!(wire.borrow().to_guest.len(), 3, "without buffers the frames wait at the host");

    for head in 0..4 {
        driver.offer(RX, head, &[(BUFFERS + 0x800 * u64::from(head), 0x800)], WRITE);
    }
    assert_eq!(driver.service().unwrap().rx_delivered, 3);
    assert!(driver.transport.readable_fd().is_some(), "one buffer is left");
    wire.borrow_mut().to_guest.push_back(with_header([0; 12], &frame_to_guest(60, 9)));
    driver.service().unwrap();
    assert!(driver.transport.readable_fd().is_none());
}

#[test]
fn frames_that_are_not_for_the_guest_cost_no_buffer() {
    let mut other_mac = frame_to_guest(60, 0);
    other_mac[5] = 77;
    let mut broadcast = frame_to_guest(60, 0);
    broadcast[..6].fill(0xff);
    let mut ipv6 = frame_to_guest(60, 0);
    ipv6[12..14].copy_from_slice(&[0x86, 0xdd]);
    let (mut driver, wire) = Driver::on_wire(16);
    let good = frame_to_guest(60, 1);
    for frame in [&other_mac, &broadcast, &ipv6, &good[..13].to_vec(), &Vec::new(), &good] {
        wire.borrow_mut().to_guest.push_back(with_header([0; 12], frame));
    }
    driver.offer(RX, 0, &[(BUFFERS, 0x800)], WRITE);
    assert_eq!(driver.service().unwrap().rx_delivered, 1);
    assert_eq!(driver.take_used(RX), [(0, 72)]);
    assert_eq!(driver.get(BUFFERS, 72), with_header(RECEIVED, &good));
    assert_eq!(driver.transport.device().counters().rx_dropped_foreign, 5);
}

#[test]
fn frames_longer_than_the_mtu_or_the_buffer_are_dropped() {
    for (buffer, longest) in [(0x2000, 1514), (1526, 1514), (112, 100)] {
        let (mut driver, wire) = Driver::on_wire(16);
        let good = frame_to_guest(longest, 1);
        wire.borrow_mut().to_guest.push_back(with_header([0; 12], &frame_to_guest(longest + 1, 0)));
        wire.borrow_mut().to_guest.push_back(with_header([0; 12], &frame_to_guest(4000, 0)));
        wire.borrow_mut().to_guest.push_back(with_header([0; 12], &good));
        driver.offer(RX, 0, &[(BUFFERS, buffer)], WRITE);
        assert_eq!(driver.service().unwrap().rx_delivered, 1);
        assert_eq!(driver.get(BUFFERS, longest + 12), with_header(RECEIVED, &good));
        assert_eq!(driver.transport.device().counters().rx_dropped_length, 2);
    }
}

#[test]
fn one_call_looks_at_a_bounded_number_of_frames() {
    let (mut driver, wire) = Driver::on_wire(16);
    wire.borrow_mut().to_guest.extend((0..100).map(|_| vec![0xff; 60]));
    driver.offer(RX, 0, &[(BUFFERS, 0x800)], WRITE);
    assert_eq!(driver.service().unwrap(), Progress { more: true, ..Progress::default() });
    assert_eq!(driver.service().unwrap(), Progress::default());
    assert_eq!(driver.transport.device().counters().rx_dropped_foreign, 100);
}

#[test]
fn a_broken_tap_is_the_hosts_fault() {
    let (mut driver, wire) = Driver::on_wire(16);
    driver.offer(RX, 0, &[(BUFFERS, 0x800)], WRITE);
    wire.borrow_mut().receive_error = Some(ErrorKind::NotFound);
    assert!(matches!(driver.service(), Err(DeviceError::Receive(_))));
}
