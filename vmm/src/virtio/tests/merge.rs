//! Long frames from the host, in several chains or in one.

use proptest::prelude::*;

use super::driver::{BUFFERS, Driver, FEATURES, WRITE};
use super::traffic::{cuts, gather, split};
use super::{frame_to_guest, with_header};
use crate::virtio::net::RX;

const GUEST_CSUM: u64 = 1 << 1;
const LONG: u64 = FEATURES | GUEST_CSUM | 1 << 7;
const MERGEABLE: u64 = 1 << 15;
/// What the host says of a segmented frame: checksum needed, TCP over IPv4, 54 bytes of headers, segments of 1460.
const SEGMENTED: [u8; 12] = [1, 1, 54, 0, 0xb4, 5, 34, 0, 16, 0, 0, 0];

/// [`SEGMENTED`], as the guest gets it with a frame in `buffers` chains.
fn delivered(buffers: u8) -> [u8; 12] {
    let mut header = SEGMENTED;
    header[10] = buffers;
    header
}

#[test]
fn a_long_frame_fills_as_many_chains_as_it_needs() {
    let (mut driver, wire) = Driver::with_features(LONG | MERGEABLE, 64);
    for head in 0..33 {
        driver.offer(RX, head, &[(BUFFERS + 2048 * u64::from(head), 2048)], WRITE);
    }
    let frame = frame_to_guest(60_000, 3);
    wire.borrow_mut().to_guest.push_back(with_header(SEGMENTED, &frame));
    assert_eq!(driver.service().unwrap().rx_delivered, 1);
    let used = driver.take_used(RX);
    assert_eq!(used.len(), 30);
    assert!(used[..29].iter().zip(0..).all(|(used, head)| *used == (head, 2048)), "{used:?}");
    assert_eq!(used[29], (29, 60_012 - 29 * 2048));
    assert_eq!(driver.get(BUFFERS, 60_012), with_header(delivered(30), &frame));
    let counters = driver.transport.device().counters();
    assert_eq!((counters.rx_frames, counters.rx_bytes), (1, 60_000));
}

#[test]
fn what_there_is_no_room_for_waits_at_the_host() {
    let (mut driver, wire) = Driver::with_features(LONG | MERGEABLE, 64);
    wire.borrow_mut().to_guest.push_back(with_header(SEGMENTED, &frame_to_guest(60_000, 3)));
    for head in 0..32 {
        driver.offer(RX, head, &[(BUFFERS + 2048 * u64::from(head), 2048)], WRITE);
    }
    driver.service().unwrap();
    assert_eq!(driver.take_used(RX), []);
    assert_eq!(wire.borrow().to_guest.len(), 1);
    assert!(driver.transport.readable_fd().is_none(), "32 times 2048 are less than 65562");
    driver.offer(RX, 32, &[(BUFFERS + 0x1_0000, 2048)], WRITE);
    assert_eq!(driver.service().unwrap().rx_delivered, 1);
    assert!(driver.transport.readable_fd().is_none(), "what is left is not enough for another");
    assert_eq!(driver.transport.device().counters().rx_dropped(), 0);
}

#[test]
fn a_table_that_can_never_have_room_gets_what_fits() {
    let (mut driver, wire) = Driver::with_features(LONG | MERGEABLE, 16);
    wire.borrow_mut().to_guest.push_back(with_header(SEGMENTED, &frame_to_guest(60_000, 3)));
    let good = frame_to_guest(30_000, 4);
    wire.borrow_mut().to_guest.push_back(with_header(SEGMENTED, &good));
    for head in [0, 2, 4, 6, 8, 10, 12, 14] {
        let at = BUFFERS + 4096 * u64::from(head);
        driver.offer(RX, head, &[(at, 4096), (at + 4096, 4096)], WRITE);
    }
    assert_eq!(driver.service().unwrap().rx_delivered, 1);
    assert_eq!(driver.transport.device().counters().rx_dropped_length, 0, "64 KiB are enough for 60000");
    assert_eq!(driver.take_used(RX).len(), 8);

    let (mut driver, wire) = Driver::with_features(LONG | MERGEABLE, 8);
    wire.borrow_mut().to_guest.push_back(with_header(SEGMENTED, &frame_to_guest(60_000, 3)));
    wire.borrow_mut().to_guest.push_back(with_header(SEGMENTED, &good));
    for head in 0..8 {
        driver.offer(RX, head, &[(BUFFERS + 4096 * u64::from(head), 4096)], WRITE);
    }
    assert_eq!(driver.service().unwrap().rx_delivered, 1);
    assert_eq!(driver.transport.device().counters().rx_dropped_length, 1);
    assert_eq!(driver.get(BUFFERS, 30_012), with_header(delivered(8), &good));
}

#[test]
fn without_mergeable_buffers_a_chain_takes_a_whole_frame_or_none() {
    for (buffer, longest) in [(65562u32, 65550usize), (4096, 4084)] {
        let (mut driver, wire) = Driver::with_features(LONG, 16);
        let good = frame_to_guest(longest, 1);
        wire.borrow_mut().to_guest.push_back(with_header(SEGMENTED, &frame_to_guest(longest + 1, 0)));
        wire.borrow_mut().to_guest.push_back(with_header(SEGMENTED, &good));
        driver.offer(RX, 0, &[(BUFFERS, buffer)], WRITE);
        driver.offer(RX, 1, &[(BUFFERS + 0x2_0000, buffer)], WRITE);
        assert_eq!(driver.service().unwrap().rx_delivered, 1);
        assert_eq!(driver.take_used(RX), [(0, buffer)]);
        assert_eq!(driver.get(BUFFERS, longest + 12), with_header(delivered(1), &good));
        assert_eq!(driver.transport.device().counters().rx_dropped_length, 1);
    }
}

#[test]
fn a_frame_with_more_left_to_do_than_agreed_is_dropped() {
    let checksum = [1, 0, 0, 0, 0, 0, 34, 0, 16, 0, 0, 0];
    let ipv6 = [1, 4, 54, 0, 0xb4, 5, 34, 0, 16, 0, 0, 0];
    for (features, header, dropped) in [
        (FEATURES, checksum, 1),
        (FEATURES, SEGMENTED, 1),
        (FEATURES | GUEST_CSUM, SEGMENTED, 1),
        (LONG, ipv6, 1),
        (FEATURES | GUEST_CSUM, checksum, 0),
        (LONG, checksum, 0),
        (LONG, SEGMENTED, 0),
    ] {
        let (mut driver, wire) = Driver::with_features(features, 16);
        wire.borrow_mut().to_guest.push_back(with_header(header, &frame_to_guest(1514, 0)));
        driver.offer(RX, 0, &[(BUFFERS, 65562)], WRITE);
        assert_eq!(driver.service().unwrap().rx_delivered, 1 - dropped, "{features:#x} {header:?}");
        assert_eq!(u64::from(dropped), driver.transport.device().counters().rx_dropped_offload);
    }
    let (mut driver, wire) = Driver::with_features(LONG, 16);
    wire.borrow_mut().to_guest.push_back(with_header([0; 12], &frame_to_guest(1515, 0)));
    driver.offer(RX, 0, &[(BUFFERS, 65562)], WRITE);
    driver.service().unwrap();
    assert_eq!(driver.transport.device().counters().rx_dropped_length, 1, "long, yet not segmented");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    /// Every frame comes out once, whole and in order, whatever chains it was spread over.
    #[test]
    fn merged_frames_come_out_whole_and_in_order(
        frames in prop::collection::vec((34usize..=20_000, any::<u8>()), 1..30),
        chains in prop::collection::vec((12usize..=0x4000, cuts()), 32),
        arriving in prop::collection::vec(0usize..6, 1..20),
    ) {
        let (mut driver, wire) = Driver::with_features(LONG | MERGEABLE, 256);
        let chains: Vec<_> = (0..).zip(&chains)
            .map(|(slot, (length, cuts))| split(BUFFERS + 0x5000 * slot, *length, cuts))
            .collect();
        let room: u32 = chains.iter().flatten().map(|(_, length)| *length).sum();
        prop_assume!(room >= 65562);
        for (slot, chain) in (0..).zip(&chains) {
            driver.offer(RX, 8 * slot, chain, WRITE);
        }
        let mut frames = frames.iter().map(|(length, seed)| frame_to_guest(*length, *seed));
        let mut expected = Vec::new();
        for count in arriving {
            for frame in frames.by_ref().take(count) {
                wire.borrow_mut().to_guest.push_back(with_header(SEGMENTED, &frame));
                expected.push(frame);
            }
            let mut received = Vec::new();
            // Each call delivers at least one frame.
            while !wire.borrow().to_guest.is_empty() {
                let before = received.len();
                let frames = driver.service().unwrap().rx_delivered as usize;
                let used = driver.take_used(RX);
                let mut pieces = used.iter().map(|(head, length)| {
                    gather(&driver, &chains[*head as usize / 8], *length as usize)
                });
                while let Some(first) = pieces.next() {
                    let more = usize::from(u16::from_le_bytes([first[10], first[11]])) - 1;
                    let mut frame = first;
                    frame.extend(pieces.by_ref().take(more).flatten());
                    received.push(frame[12..].to_vec());
                }
                drop(pieces);
                prop_assert_eq!(received.len() - before, frames);
                prop_assert!(frames > 0);
                for (head, _) in used {
                    driver.offer(RX, head as u16, &chains[head as usize / 8], WRITE);
                }
            }
            prop_assert_eq!(&received, &expected);
            expected.clear();
        }
        prop_assert_eq!(driver.transport.device().counters().rx_dropped(), 0);
    }
}
