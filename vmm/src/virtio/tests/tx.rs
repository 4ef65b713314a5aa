//! From the guest to the host.

use std::io::ErrorKind;

use super::driver::{BUFFERS, Driver};
use super::fake::FakeIo;
use super::{NOISE, frame_to_host, with_header};
use crate::virtio::Progress;
use crate::virtio::net::{NetCounters, TX};

/// Offers `frame` behind a header full of noise.
fn offer(driver: &mut Driver<FakeIo>, head: u16, frame: &[u8]) {
    let bytes = with_header(NOISE, frame);
    let at = BUFFERS + 0x2000 * u64::from(head);
    driver.put(at, &bytes);
    driver.offer(TX, head, &[(at, bytes.len() as u32)], 0);
}

#[test]
fn a_frame_is_sent_with_a_header_of_zeros() {
    let (mut driver, wire) = Driver::on_wire(16);
    let frame = frame_to_host(1514, 7);
    offer(&mut driver, 3, &frame);
    let progress = driver.service().unwrap();
    assert_eq!(progress, Progress { rx_delivered: 0, tx_completed: 1, wake: true, more: false });
    assert_eq!(wire.borrow().from_guest, [with_header([0; 12], &frame)]);
    assert_eq!(driver.take_used(TX), [(3, 0)]);
    let expected = NetCounters { tx_frames: 1, tx_bytes: 1514, ..NetCounters::default() };
    assert_eq!(driver.transport.device().counters(), &expected);
}

#[test]
fn a_driver_without_interest_in_completions_is_not_woken_by_them() {
    let (mut driver, _wire) = Driver::on_wire(16);
    driver.set_available_flags(TX, 1);
    offer(&mut driver, 0, &frame_to_host(60, 0));
    assert_eq!(driver.service().unwrap(), Progress { tx_completed: 1, ..Progress::default() });
}

#[test]
fn a_frame_that_does_not_belong_on_the_link_is_dropped_and_counted() {
    let edit = |at: usize, bytes: &[u8]| {
        let mut frame = frame_to_host(80, 0);
        frame[at..at + bytes.len()].copy_from_slice(bytes);
        frame
    };
    type Field = fn(&NetCounters) -> u64;
    let cases: [(&str, Vec<u8>, Field); 13] = [
        ("no frame", vec![], |c| c.tx_dropped_length),
        ("cut in its ethernet header", vec![0; 13], |c| c.tx_dropped_length),
        ("cut in its ip header", frame_to_host(34, 0)[..33].to_vec(), |c| c.tx_dropped_length),
        ("longer than the mtu", frame_to_host(1515, 0), |c| c.tx_dropped_length),
        ("much longer", frame_to_host(6000, 0), |c| c.tx_dropped_length),
        ("arp", edit(12, &[0x08, 0x06]), |c| c.tx_dropped_protocol),
        ("vlan tag", edit(12, &[0x81, 0x00]), |c| c.tx_dropped_protocol),
        ("ip version 6", edit(14, &[0x65]), |c| c.tx_dropped_protocol),
        ("short ip header", edit(14, &[0x44]), |c| c.tx_dropped_protocol),
        ("other mac", edit(11, &[9]), |c| c.tx_dropped_source),
        ("other address", edit(29, &[9]), |c| c.tx_dropped_source),
        ("broadcast", edit(0, &[0xff; 6]), |c| c.tx_dropped_destination),
        ("to another vm", edit(33, &[3]), |c| c.tx_dropped_destination),
    ];
    for (what, frame, field) in cases {
        let (mut driver, wire) = Driver::on_wire(16);
        offer(&mut driver, 0, &frame);
        offer(&mut driver, 4, &frame_to_host(60, 0));
        assert_eq!(driver.service().unwrap().tx_completed, 2, "{what}");
        assert_eq!(driver.take_used(TX), [(0, 0), (4, 0)], "{what}");
        assert_eq!(wire.borrow().from_guest.len(), 1, "{what}");
        let counters = driver.transport.device().counters();
        assert_eq!((field(counters), counters.tx_dropped(), counters.tx_frames), (1, 1, 1), "{what}");
    }
}

#[test]
fn a_host_that_takes_nothing_leaves_frames_in_the_ring_in_order() {
    let (mut driver, wire) = Driver::on_wire(16);
    wire.borrow_mut().send_error = Some(ErrorKind::WouldBlock);
    for head in 0..3 {
        offer(&mut driver, head, &frame_to_host(60, head as u8));
    }
    for _ in 0..2 {
        assert_eq!(driver.service().unwrap(), Progress::default());
        assert!(driver.transport.writable_fd().is_some());
    }
    wire.borrow_mut().send_error = None;
    assert_eq!(driver.service().unwrap().tx_completed, 3);
    assert!(driver.transport.writable_fd().is_none());
    let expected: Vec<_> = (0..3).map(|seed| with_header([0; 12], &frame_to_host(60, seed))).collect();
    assert_eq!(wire.borrow().from_guest, expected);
    assert_eq!(driver.transport.device().counters().tx_dropped(), 0);
}

#[test]
fn a_frame_that_the_host_refuses_is_dropped_and_counted() {
    let (mut driver, wire) = Driver::on_wire(16);
    wire.borrow_mut().send_error = Some(ErrorKind::InvalidInput);
    offer(&mut driver, 0, &frame_to_host(60, 0));
    assert_eq!(driver.service().unwrap().tx_completed, 1);
    assert_eq!(driver.transport.device().counters().tx_dropped_host, 1);
    assert!(driver.transport.writable_fd().is_none());
}

#[test]
fn one_call_sends_a_bounded_number_of_frames() {
    let (mut driver, wire) = Driver::on_wire(256);
    let bytes = with_header([0; 12], &frame_to_host(60, 0));
    driver.put(BUFFERS, &bytes);
    for head in 0..130 {
        driver.offer(TX, head, &[(BUFFERS, bytes.len() as u32)], 0);
    }
    for (sent, more) in [(64, true), (64, true), (2, false), (0, false)] {
        let progress = driver.service().unwrap();
        assert_eq!((progress.tx_completed, progress.more), (sent, more));
    }
    assert_eq!(wire.borrow().from_guest.len(), 130);
}
