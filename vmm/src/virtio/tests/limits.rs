//! Limits of a link: what is too much waits, nothing is lost, and nobody polls in vain.

use std::cell::RefCell;
use std::num::NonZeroU64;
use std::rc::Rc;
use std::time::Duration;

use proptest::prelude::*;
use virtio_bindings::virtio_mmio as register;

use super::driver::{BUFFERS, Driver, FEATURES, WRITE};
use super::fake::{FakeIo, Wire};
use super::{LINK, frame_to_guest, frame_to_host, with_header};
use crate::spec::{NetLimits, NetSpec, Rate};
use crate::virtio::net::{RX, TX};

/// Receiving and sending of TCP segments up to 64 KiB.
const LONG: u64 = FEATURES | 1 << 0 | 1 << 1 | 1 << 7 | 1 << 11;
/// Checksum needed, TCP over IPv4, 54 bytes of headers, segments of 1460.
const SEGMENTED: [u8; 12] = [1, 1, 54, 0, 0xb4, 5, 34, 0, 16, 0, 0, 0];

fn rate(bytes: u64, packets: u64) -> Rate {
    Rate { bytes_per_second: NonZeroU64::new(bytes), packets_per_second: NonZeroU64::new(packets) }
}

/// A live device with `limit` in both directions.
fn limited(limit: Rate) -> (Driver<FakeIo>, Rc<RefCell<Wire>>) {
    let (io, wire) = FakeIo::new();
    let link = NetSpec { limits: NetLimits { send: limit, receive: limit }, ..LINK };
    let mut driver = Driver::on_link(io, &link);
    driver.start_with(LONG, 256);
    (driver, wire)
}

/// Offers `count` frames of 1000 bytes.
fn offer_sent(driver: &mut Driver<FakeIo>, count: u16) {
    driver.put(BUFFERS, &with_header([0; 12], &frame_to_host(1000, 0)));
    for head in 0..count {
        driver.offer(TX, head, &[(BUFFERS, 1012)], 0);
    }
}

#[test]
fn what_exceeds_the_limit_stays_in_the_ring_until_the_deadline() {
    let (mut driver, wire) = limited(rate(100_000, 0));
    offer_sent(&mut driver, 100);
    assert_eq!(driver.service().unwrap().tx_completed, 64, "a batch");
    let start = driver.now;
    let progress = driver.service().unwrap();
    assert_eq!((progress.tx_completed, progress.more), (2, false), "65536 bytes, the last frame in debt");
    // 66000 - 65536 bytes of debt, and the first billionth above.
    assert_eq!(driver.transport.deadline(), Some(start + Duration::from_nanos(4_640_000 + 1)));
    assert!(driver.transport.writable_fd().is_none());
    for head in 66..100 {
        driver.now = driver.transport.deadline().unwrap() - Duration::from_nanos(1);
        assert_eq!(driver.service().unwrap().tx_completed, 0);
        driver.now = driver.transport.deadline().unwrap();
        assert_eq!(driver.service().unwrap().tx_completed, 1, "{head}");
    }
    assert_eq!(
        driver.now - start,
        Duration::from_nanos(334_640_000 + 1),
        "34 frames at 10 ms, but for the last"
    );
    assert_eq!(driver.service().unwrap(), Default::default());
    assert_eq!(driver.transport.deadline(), None, "nothing waits any more");
    assert_eq!((wire.borrow().from_guest.len(), driver.take_used(TX).len()), (100, 100));
}

#[test]
fn what_exceeds_the_limit_is_not_read_from_the_host() {
    let (mut driver, wire) = limited(rate(0, 450));
    wire.borrow_mut().to_guest.extend((0..60).map(|seed| with_header([0; 12], &frame_to_guest(1000, seed))));
    for head in 0..61 {
        driver.offer(RX, head, &[(BUFFERS + 0x800 * u64::from(head), 0x800)], WRITE);
    }
    assert_eq!(driver.service().unwrap().rx_delivered, 45);
    assert!(driver.transport.readable_fd().is_none(), "or the VMM would spin");
    assert_eq!(wire.borrow().to_guest.len(), 15);
    driver.now += Duration::from_millis(10);
    assert_eq!(driver.service().unwrap().rx_delivered, 5, "4.5 packets, the last in debt");
    driver.now += Duration::from_secs(9);
    assert_eq!(driver.service().unwrap().rx_delivered, 10);
    assert!(driver.transport.readable_fd().is_some() && driver.transport.deadline().is_none());
}

#[test]
fn a_full_bucket_without_buffers_has_no_deadline() {
    let (mut driver, wire) = limited(rate(0, 1));
    wire.borrow_mut().to_guest.extend((0..60).map(|seed| with_header([0; 12], &frame_to_guest(60, seed))));
    for head in 0..45 {
        driver.offer(RX, head, &[(BUFFERS + 0x800 * u64::from(head), 0x800)], WRITE);
    }
    assert_eq!(driver.service().unwrap().rx_delivered, 45);
    assert_eq!(driver.transport.deadline(), None, "it is the guest's turn");
    driver.offer(RX, 0, &[(BUFFERS, 0x800)], WRITE);
    driver.service().unwrap();
    assert_eq!(driver.transport.deadline(), Some(driver.now + Duration::from_nanos(1)));
}

#[test]
fn a_segmented_frame_counts_as_the_packets_that_it_becomes() {
    let mut frame = frame_to_host(54 + 20 * 1460 + 1, 0);
    let total = u16::try_from(frame.len() - 14).unwrap();
    frame[16..18].copy_from_slice(&total.to_be_bytes());
    frame[46] = 0x50;
    let bytes = with_header(SEGMENTED, &frame);
    let (mut driver, wire) = limited(rate(0, 21));
    driver.put(BUFFERS, &bytes);
    for head in 0..4 {
        driver.offer(TX, head, &[(BUFFERS, bytes.len() as u32)], 0);
    }
    assert_eq!(driver.service().unwrap().tx_completed, 3, "45 packets, three frames of 21");
    let debt = Duration::from_nanos(18 * 1_000_000_000 / 21 + 1);
    assert_eq!(driver.transport.deadline(), Some(driver.now + debt));

    let received = with_header(SEGMENTED, &frame_to_guest(frame.len(), 0));
    wire.borrow_mut().to_guest.extend(vec![received; 4]);
    for head in 0..4 {
        driver.offer(RX, head, &[(BUFFERS + 0x1_8000 * u64::from(head), 65562)], WRITE);
    }
    assert_eq!(driver.service().unwrap().rx_delivered, 3);
}

#[test]
fn neither_a_reset_nor_a_rewind_fills_a_bucket() {
    let (mut driver, _wire) = limited(rate(0, 1));
    let before = driver.transport.state();
    offer_sent(&mut driver, 60);
    assert_eq!(driver.service().unwrap().tx_completed, 45);
    driver.transport.rewind(&before, &driver.memory).unwrap();
    assert_eq!(driver.transport.deadline(), None, "of what is to come nothing is known yet");
    assert_eq!(driver.service().unwrap().tx_completed, 0);
    assert!(driver.transport.deadline().is_some());
    driver.start_with(LONG, 256);
    assert_eq!(driver.service().unwrap().tx_completed, 0);
    driver.write(register::VIRTIO_MMIO_STATUS, 0).unwrap();
    assert_eq!(driver.transport.deadline(), None);
}

#[test]
fn what_is_dropped_or_refused_costs_nothing() {
    let (mut driver, wire) = limited(rate(0, 1));
    driver.put(BUFFERS, &with_header([0; 12], &[0; 1000]));
    for head in 0..100 {
        driver.offer(TX, head, &[(BUFFERS, 1012)], 0);
    }
    driver.service().unwrap();
    driver.service().unwrap();
    assert_eq!(driver.transport.device().counters().tx_dropped(), 100);
    wire.borrow_mut().send_error = Some(std::io::ErrorKind::WouldBlock);
    offer_sent(&mut driver, 60);
    assert_eq!(driver.service().unwrap().tx_completed, 0);
    assert!(driver.transport.deadline().is_none() && driver.transport.writable_fd().is_some());
    wire.borrow_mut().send_error = None;
    assert_eq!(driver.service().unwrap().tx_completed, 45);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    /// Both directions at any rate, woken only when the device says so: all arrives, in order, and not too fast.
    #[test]
    fn who_comes_back_at_the_deadline_gets_everything_at_the_rate(
        bytes in 1_000u64..10_000_000,
        packets in 1u64..10_000,
        lengths in prop::collection::vec(34usize..1514, 1..120),
    ) {
        let (mut driver, wire) = limited(rate(bytes, packets));
        let start = driver.now;
        for (head, length) in (0..).zip(&lengths) {
            let at = BUFFERS + 0x1000 * u64::from(head);
            let frame = with_header([0; 12], &frame_to_host(*length, head as u8));
            driver.put(at, &frame);
            driver.offer(TX, head, &[(at, frame.len() as u32)], 0);
            driver.offer(RX, head, &[(at + 0x800, 0x800)], WRITE);
            wire.borrow_mut().to_guest.push_back(with_header([0; 12], &frame_to_guest(*length, head as u8)));
        }
        let mut calls = 0;
        while driver.service().unwrap().more || driver.transport.deadline().is_some() {
            driver.now = driver.transport.deadline().unwrap_or(driver.now);
            calls += 1;
            prop_assert!(calls < 1000, "each deadline lets a frame pass");
        }
        let expected: Vec<_> =
            (0..).zip(&lengths).map(|(seed, length)| with_header([0; 12], &frame_to_host(*length, seed))).collect();
        prop_assert_eq!(&wire.borrow().from_guest, &expected);
        prop_assert_eq!(driver.take_used(RX).len(), lengths.len());
        let total: usize = lengths.iter().sum::<usize>() - lengths[lengths.len() - 1];
        let elapsed = (driver.now - start).as_secs_f64();
        prop_assert!(total as f64 <= bytes as f64 * elapsed + (bytes / 10).max(65536) as f64 + 1.0);
        prop_assert!((lengths.len() - 1) as f64 <= packets as f64 * elapsed + (packets / 10).max(45) as f64 + 1.0);
    }
}
