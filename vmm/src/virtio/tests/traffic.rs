//! Normal traffic against a model: what goes in comes out, once, in order, however chains are split.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::driver::{BUFFERS, Driver, WRITE};
use super::{NOISE, frame_to_guest, frame_to_host, with_header};
use crate::virtio::net::{RX, TX};

const QUEUE: u16 = 64;
/// Descriptors that one chain may take.
const SLOT: u16 = 8;
/// Memory of one chain's buffers.
const SPAN: u64 = 0x1000;

/// Cuts `length` bytes from `start` into at most [`SLOT`] buffers at `cuts` (in thousandths), gaps between them.
pub(super) fn split(start: u64, length: usize, cuts: &[usize]) -> Vec<(u64, u32)> {
    let mut ends: Vec<usize> = cuts.iter().map(|cut| length * cut / 1000).collect();
    ends.sort_unstable();
    ends.push(length);
    let mut from = 0;
    let mut buffers = Vec::new();
    for (position, end) in (0..).zip(ends) {
        buffers.push((start + 3 * position + from as u64, (end - from) as u32));
        from = end;
    }
    buffers
}

fn scatter(driver: &Driver<super::fake::FakeIo>, buffers: &[(u64, u32)], mut bytes: &[u8]) {
    for (address, length) in buffers {
        let (now, later) = bytes.split_at(*length as usize);
        driver.put(*address, now);
        bytes = later;
    }
}

pub(super) fn gather(driver: &Driver<super::fake::FakeIo>, buffers: &[(u64, u32)], length: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> =
        buffers.iter().flat_map(|(address, length)| driver.get(*address, *length as usize)).collect();
    bytes.truncate(length);
    bytes
}

pub(super) fn cuts() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(0usize..=1000, 0..usize::from(SLOT))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn frames_sent_come_out_in_order(
        frames in prop::collection::vec((34usize..=1514, any::<u8>(), cuts()), 1..120),
        burst in 1usize..=8,
    ) {
        let (mut driver, wire) = Driver::on_wire(QUEUE);
        for frames in frames.chunks(burst) {
            for (slot, (length, seed, cuts)) in (0..).zip(frames) {
                let bytes = with_header(NOISE, &frame_to_host(*length, *seed));
                let buffers = split(BUFFERS + SPAN * u64::from(slot), bytes.len(), cuts);
                scatter(&driver, &buffers, &bytes);
                driver.offer(TX, SLOT * slot, &buffers, 0);
            }
            let progress = driver.service().unwrap();
            prop_assert_eq!(progress.tx_completed as usize, frames.len());
            let heads: Vec<_> = (0..frames.len()).map(|slot| (u32::from(SLOT) * slot as u32, 0)).collect();
            prop_assert_eq!(driver.take_used(TX), heads);
        }
        let expected: Vec<_> = frames.iter()
            .map(|(length, seed, _)| with_header([0; 12], &frame_to_host(*length, *seed)))
            .collect();
        prop_assert_eq!(&wire.borrow().from_guest, &expected);
    }

    #[test]
    fn frames_received_come_out_in_order(
        frames in prop::collection::vec((34usize..=1514, any::<u8>()), 1..120),
        buffers in prop::collection::vec((1526usize..=2048, cuts()), 8),
        arriving in prop::collection::vec(0usize..12, 1..40),
    ) {
        let (mut driver, wire) = Driver::on_wire(QUEUE);
        let chains: Vec<_> = (0..).zip(&buffers)
            .map(|(slot, (length, cuts))| split(BUFFERS + SPAN * slot, *length, cuts))
            .collect();
        for (slot, chain) in (0..).zip(&chains) {
            driver.offer(RX, SLOT * slot, chain, WRITE);
        }
        let mut waiting: VecDeque<_> = frames.iter().map(|(length, seed)| frame_to_guest(*length, *seed)).collect();
        let mut received = Vec::new();
        for count in arriving.iter().copied().chain(std::iter::repeat(8)) {
            for frame in waiting.drain(..count.min(waiting.len())) {
                wire.borrow_mut().to_guest.push_back(with_header(NOISE, &frame));
            }
            let backlog = wire.borrow().to_guest.len();
            let delivered = driver.service().unwrap().rx_delivered as usize;
            prop_assert_eq!(delivered, backlog.min(8));
            for (head, length) in driver.take_used(RX) {
                let head = u16::try_from(head).unwrap();
                let chain = &chains[usize::from(head / SLOT)];
                received.push(gather(&driver, chain, length as usize)[12..].to_vec());
                driver.offer(RX, head, chain, WRITE);
            }
            if waiting.is_empty() && wire.borrow().to_guest.is_empty() {
                break;
            }
        }
        let expected: Vec<_> = frames.iter().map(|(length, seed)| frame_to_guest(*length, *seed)).collect();
        prop_assert_eq!(received, expected);
    }
}

#[test]
fn indexes_wrap_around() {
    let (mut driver, wire) = Driver::on_wire(4);
    let bytes = with_header([0; 12], &frame_to_host(34, 0));
    driver.put(BUFFERS, &bytes);
    for round in 0..70_000u32 {
        let head = (round % 4) as u16;
        driver.offer(TX, head, &[(BUFFERS, bytes.len() as u32)], 0);
        if round % 3 == 0 {
            driver.service().unwrap();
        }
    }
    driver.service().unwrap();
    assert_eq!(wire.borrow().from_guest.len(), 70_000);
}
