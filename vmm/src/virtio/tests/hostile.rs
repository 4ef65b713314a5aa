//! Guests that break the ring protocol, and proof by random input that nothing else can happen to the VMM.

use proptest::prelude::*;
use virtio_bindings::virtio_mmio as register;
use vm_memory::{Bytes, GuestAddress};

use super::driver::{BUFFERS, Descriptor, Driver, FEATURES, FLOOR, MEMORY, NEXT, QUEUES, WRITE};
use super::fake::FakeIo;
use super::{NOISE, frame_to_guest, frame_to_host, with_header};
use crate::virtio::net::{BATCH, RX, TX};
use crate::virtio::{DeviceError, Violation};

const INDIRECT: u16 = 4;

fn violation(driver: &mut Driver<FakeIo>) -> Violation {
    match driver.service() {
        Err(DeviceError::Violation(violation)) => violation,
        other => panic!("no violation: {other:?}"),
    }
}

/// What servicing ends in after the driver described `descriptors` from index 0 on, and made 0 available.
fn chain_ends_in(queue: u16, descriptors: &[Descriptor]) -> Violation {
    let (mut driver, _wire) = Driver::on_wire(16);
    for (index, descriptor) in (0..).zip(descriptors) {
        driver.describe(queue, index, *descriptor);
    }
    driver.publish(queue, 0);
    violation(&mut driver)
}

#[test]
fn descriptor_loops_end() {
    for queue in [RX, TX] {
        let flags = if queue == RX { WRITE | NEXT } else { NEXT };
        let itself = [(BUFFERS, 64, flags, 0)];
        assert_eq!(chain_ends_in(queue, &itself), Violation::DescriptorLoop { queue, head: 0 });
        let two = [(BUFFERS, 64, flags, 1), (BUFFERS, 64, flags, 0)];
        assert_eq!(chain_ends_in(queue, &two), Violation::DescriptorLoop { queue, head: 0 });
    }
}

#[test]
fn descriptor_indexes_outside_of_the_table_are_found() {
    for index in [16, 17, u16::MAX] {
        let next = [(BUFFERS, 64, NEXT, index)];
        assert_eq!(chain_ends_in(TX, &next), Violation::DescriptorIndex { queue: TX, index });
        let (mut driver, _wire) = Driver::on_wire(16);
        driver.publish(RX, index);
        assert_eq!(violation(&mut driver), Violation::DescriptorIndex { queue: RX, index });
    }
}

#[test]
fn buffers_outside_of_memory_or_below_the_floor_are_found() {
    let bad = [
        (MEMORY, 1),
        (MEMORY - 10, 11),
        (BUFFERS, u32::MAX),
        (u64::MAX, 1),
        (u64::MAX - 10, 100),
        (1 << 47, 64),
        (0, 64),
        (FLOOR - 1, 64),
        (FLOOR - 1, 1),
    ];
    for (address, length) in bad {
        for (queue, flags) in [(RX, WRITE), (TX, 0)] {
            let expected = Violation::Buffer { queue, address, length };
            assert_eq!(chain_ends_in(queue, &[(address, length, flags, 0)]), expected);
            let second = [(BUFFERS, 2000, flags | NEXT, 1), (address, length, flags, 0)];
            assert_eq!(chain_ends_in(queue, &second), expected);
        }
    }
}

#[test]
fn buffers_of_the_wrong_direction_are_found() {
    let cases: [(u16, &[Descriptor]); 5] = [
        (RX, &[(BUFFERS, 2000, 0, 0)]),
        (RX, &[(BUFFERS, 64, NEXT, 1), (BUFFERS, 2000, WRITE, 0)]),
        (TX, &[(BUFFERS, 2000, WRITE, 0)]),
        (TX, &[(BUFFERS, 64, NEXT, 1), (BUFFERS, 64, WRITE, 0)]),
        (TX, &[(BUFFERS, 64, WRITE | NEXT, 1), (BUFFERS, 64, 0, 0)]),
    ];
    for (queue, descriptors) in cases {
        assert_eq!(chain_ends_in(queue, descriptors), Violation::Direction { queue, head: 0 });
    }
}

#[test]
fn indirect_descriptors_were_not_offered() {
    for flags in [INDIRECT, INDIRECT | NEXT, INDIRECT | WRITE] {
        let expected = Violation::IndirectDescriptor { queue: TX, index: 0 };
        assert_eq!(chain_ends_in(TX, &[(BUFFERS, 64, flags, 0)]), expected);
    }
}

#[test]
fn chains_too_short_for_their_header_are_found() {
    for length in [0, 1, 11] {
        let expected = Violation::ChainLength { queue: TX, head: 0, length: length as usize, needed: 12 };
        assert_eq!(chain_ends_in(TX, &[(BUFFERS, length, 0, 0)]), expected);
    }
    for length in [0, 12, 25] {
        let expected = Violation::ChainLength { queue: RX, head: 0, length: length as usize, needed: 26 };
        assert_eq!(chain_ends_in(RX, &[(BUFFERS, length, WRITE, 0)]), expected);
    }
}

#[test]
fn the_available_index_may_not_run_further_than_the_queue_is_long() {
    for index in [17, 1000, u16::MAX] {
        for queue in [RX, TX] {
            let (mut driver, _wire) = Driver::on_wire(16);
            driver.put(QUEUES[usize::from(queue)][1] + 2, &index.to_le_bytes());
            assert_eq!(violation(&mut driver), Violation::AvailableIndex { queue });
        }
    }
}

#[test]
fn nothing_below_the_floor_or_outside_the_buffers_is_written() {
    let (mut driver, wire) = Driver::on_wire(16);
    driver.offer(RX, 0, &[(BUFFERS + 0x1000, 200)], WRITE);
    let before = driver.get(0, MEMORY as usize);
    wire.borrow_mut().to_guest.push_back(with_header(NOISE, &frame_to_guest(100, 1)));
    assert_eq!(driver.service().unwrap().rx_delivered, 1);
    let after = driver.get(0, MEMORY as usize);
    let changed = (0..).zip(before.iter().zip(&after)).filter(|(_, (old, new))| old != new);
    let used = QUEUES[usize::from(RX)][2];
    for (address, _) in changed {
        let in_buffer = (BUFFERS + 0x1000..BUFFERS + 0x1000 + 112).contains(&address);
        assert!(in_buffer || (used..used + 4 + 8 * 16).contains(&address), "{address:#x}");
    }
}

/// Values that are more often interesting than random ones.
pub(super) fn value() -> impl Strategy<Value = u32> {
    let small = 0u32..20;
    let addresses =
        prop::sample::select(vec![0x2_0000u32, 0x2_2000, 0x2_4000, 0x3_0000, 0x3_2000, 0x3_4000, 0x1f_ff00]);
    prop_oneof![3 => small, 3 => addresses, 1 => any::<u32>()]
}

/// None of the offloads, or all of them.
fn features() -> impl Strategy<Value = u64> {
    prop::sample::select(vec![FEATURES, FEATURES | 1 << 0 | 1 << 1 | 1 << 7 | 1 << 11 | 1 << 15])
}

/// A descriptor that is mostly near to a valid one.
fn descriptor() -> impl Strategy<Value = Descriptor> {
    let address = prop_oneof![4 => BUFFERS..MEMORY, 1 => 0..MEMORY + 0x1000, 1 => any::<u64>()];
    let length = prop_oneof![6 => 0u32..2000, 1 => any::<u32>()];
    let next = prop_oneof![8 => 0u16..16, 1 => any::<u16>()];
    (address, length, prop_oneof![8 => 0u16..4, 1 => any::<u16>()], next)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn any_register_access_is_survived(
        accesses in prop::collection::vec((0u64..0x120, value(), any::<bool>(), prop::sample::select(vec![1usize, 2, 4, 4, 4, 8])), 1..200),
        stage in 0..3,
    ) {
        let mut driver = Driver::reset();
        match stage {
            0 => {}
            1 => driver.negotiate(FEATURES),
            _ => driver.start(16),
        }
        for (offset, value, write, width) in accesses {
            let offset = if width == 4 { offset & !3 } else { offset };
            let mut data = u64::from(value).to_le_bytes();
            if !write {
                driver.transport.read(offset, &mut data[..width]);
            } else if driver.transport.write(offset, &data[..width], &driver.memory).is_err() {
                break;
            }
            if driver.service().is_err() {
                break;
            }
        }
    }

    #[test]
    fn any_ring_content_is_survived_with_bounded_work(
        descriptors in prop::collection::vec(descriptor(), 16),
        heads in prop::collection::vec(prop_oneof![8 => 0u16..16, 1 => any::<u16>()], 16),
        available in prop_oneof![8 => 0u16..=16, 1 => any::<u16>()],
        queue in prop::sample::select(vec![RX, TX]),
        frames in prop::collection::vec(1usize..3000, 0..40),
        features in features(),
    ) {
        let (mut driver, wire) = Driver::with_features(features, 16);
        for (index, descriptor) in (0..).zip(&descriptors) {
            driver.describe(queue, index, *descriptor);
        }
        for head in &heads {
            driver.publish(queue, *head);
        }
        driver.put(QUEUES[usize::from(queue)][1] + 2, &available.to_le_bytes());
        wire.borrow_mut().to_guest.extend(frames.iter().map(|length| vec![0xff; *length]));
        let low = driver.get(0, FLOOR as usize);
        if let Ok(progress) = driver.service() {
            prop_assert!(progress.rx_delivered <= BATCH && progress.tx_completed <= 16);
        }
        prop_assert_eq!(driver.get(0, FLOOR as usize), low);
        prop_assert!(wire.borrow().from_guest.is_empty(), "zeros are no frame of this guest's");
    }

    #[test]
    fn any_memory_under_the_rings_is_survived(
        noise in prop::collection::vec(any::<u8>(), 0x400),
        at in 0usize..0x2000,
        frames in 0u8..4,
        features in features(),
    ) {
        let (mut driver, wire) = Driver::with_features(features, 64);
        for frame in 0..frames {
            wire.borrow_mut().to_guest.push_back(with_header([0; 12], &frame_to_guest(600, frame)));
            driver.offer(RX, frame.into(), &[(BUFFERS + 0x800 * u64::from(frame), 0x800)], WRITE);
        }
        for rings in QUEUES {
            driver.memory.write_slice(&noise, GuestAddress(rings[at % 3] + (at as u64 & !0x3ff) % 0x800)).unwrap();
        }
        for _ in 0..4 {
            if driver.service().is_err() {
                break;
            }
        }
    }
}

#[test]
fn many_chains_of_many_tiny_pieces_are_no_more_than_one_system_call_takes() {
    let features = FEATURES | 1 << 1 | 1 << 7 | 1 << 15;
    let (mut driver, wire) = Driver::with_features(features, 256);
    // All heads are the same chain: 256 pieces of one byte.
    for index in 0..=255 {
        let next = if index < 255 { NEXT } else { 0 };
        driver.describe(RX, index, (BUFFERS, 1, WRITE | next, (index + 1) % 256));
    }
    for _ in 0..256 {
        driver.publish(RX, 0);
    }
    wire.borrow_mut().to_guest.extend([vec![0xff; 9000], with_header([0; 12], &frame_to_guest(100, 1))]);
    assert_eq!(driver.service().unwrap().rx_delivered, 1);
    assert!(wire.borrow().most_pieces <= 1022, "{}", wire.borrow().most_pieces);
    assert_eq!(driver.take_used(RX), [(0, 112)]);
}

#[test]
fn a_violation_leaves_what_came_before_it_done() {
    let (mut driver, wire) = Driver::on_wire(16);
    driver.put(BUFFERS, &with_header([0; 12], &frame_to_host(60, 0)));
    driver.offer(TX, 0, &[(BUFFERS, 72)], 0);
    driver.offer(TX, 1, &[(0, 72)], 0);
    assert_eq!(violation(&mut driver), Violation::Buffer { queue: TX, address: 0, length: 72 });
    assert_eq!(wire.borrow().from_guest.len(), 1);
    assert_eq!(driver.read(register::VIRTIO_MMIO_INTERRUPT_STATUS), 0);
}
