//! The transport with a device that does nothing, for what a network device does not show.

use std::cell::Cell;
use std::os::fd::BorrowedFd;
use std::rc::Rc;
use std::time::Instant;

use virtio_bindings::virtio_mmio as register;
use virtio_queue::{Queue, QueueT};
use vm_memory::{GuestAddress, GuestMemoryMmap};

use super::driver::{BUFFERS, Driver, FEATURES, NEXT, QUEUES, WRITE};
use crate::virtio::chain::Chain;
use crate::virtio::{DeviceError, DmaMemory, Progress, Transport, Violation, VirtioDevice};

/// Remembers what it was activated with, and when it was last served.
struct Recorder(Rc<Cell<Option<u64>>>, Option<Instant>);

impl VirtioDevice for Recorder {
    fn device_id(&self) -> u32 {
        4
    }
    fn features(&self) -> u64 {
        1 << 5
    }
    fn queue_sizes(&self) -> &'static [u16] {
        &[8]
    }
    fn config(&self) -> &[u8] {
        &[]
    }
    fn accepts(&self, _: u64) -> bool {
        true
    }
    fn activate(&mut self, features: u64) -> Result<(), DeviceError> {
        self.0.set(Some(features));
        Ok(())
    }
    fn discard(&mut self) {}

    fn reset(&mut self) -> Result<(), DeviceError> {
        self.0.set(None);
        Ok(())
    }
    fn service(&mut self, _: &mut [Queue], _: DmaMemory<'_>, now: Instant) -> Result<Progress, DeviceError> {
        self.1 = Some(now);
        Ok(Progress { more: true, ..Progress::default() })
    }
    fn deadline(&self) -> Option<Instant> {
        self.1
    }
    fn readable_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }
    fn writable_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

#[test]
fn a_device_is_activated_once_with_the_features_that_were_accepted() {
    let activated = Rc::new(Cell::new(None));
    let mut transport = Transport::new(Recorder(Rc::clone(&activated), None), 0).unwrap();
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x1_0000)]).unwrap();
    let mut write = |register: u32, value: u32| {
        transport.write(register.into(), &value.to_le_bytes(), &memory).unwrap();
        transport.service(&memory, Instant::now()).unwrap().more
    };
    for (features, accepted) in [(1 << 5, 1 << 32 | 1 << 5), (0, 1 << 32)] {
        write(register::VIRTIO_MMIO_STATUS, 0);
        assert_eq!(activated.get(), None);
        write(register::VIRTIO_MMIO_STATUS, 3);
        write(register::VIRTIO_MMIO_DRIVER_FEATURES, features);
        write(register::VIRTIO_MMIO_DRIVER_FEATURES_SEL, 1);
        write(register::VIRTIO_MMIO_DRIVER_FEATURES, 1);
        write(register::VIRTIO_MMIO_STATUS, 0xb);
        write(register::VIRTIO_MMIO_DRIVER_FEATURES, u32::MAX);
        assert_eq!(activated.get(), None);
        assert!(write(register::VIRTIO_MMIO_STATUS, 0xf), "served from DRIVER_OK on");
        assert_eq!(activated.replace(None), Some(accepted));
        write(register::VIRTIO_MMIO_STATUS, 0xf);
        assert_eq!(activated.get(), None);
    }
}

#[test]
fn a_deadline_counts_only_while_the_device_is_live() {
    let mut transport = Transport::new(Recorder(Rc::default(), None), 0).unwrap();
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x1_0000)]).unwrap();
    let now = Instant::now();
    for (register, value) in [
        (register::VIRTIO_MMIO_STATUS, 3),
        (register::VIRTIO_MMIO_DRIVER_FEATURES_SEL, 1),
        (register::VIRTIO_MMIO_DRIVER_FEATURES, 1),
        (register::VIRTIO_MMIO_STATUS, 0xb),
        (register::VIRTIO_MMIO_STATUS, 0xf),
    ] {
        transport.service(&memory, now).unwrap();
        assert_eq!(transport.deadline(), None);
        transport.write(register.into(), &u32::to_le_bytes(value), &memory).unwrap();
    }
    transport.service(&memory, now).unwrap();
    assert_eq!(transport.deadline(), Some(now));
    transport.write(register::VIRTIO_MMIO_STATUS.into(), &0x8fu32.to_le_bytes(), &memory).unwrap();
    assert_eq!(transport.deadline(), None);
}

#[test]
fn address_zero_is_no_ring_even_without_a_floor() {
    let mut transport = Transport::new(Recorder(Rc::default(), None), 0).unwrap();
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x1_0000)]).unwrap();
    let mut write =
        |register: u32, value: u32| transport.write(register.into(), &value.to_le_bytes(), &memory);
    write(register::VIRTIO_MMIO_STATUS, 3).unwrap();
    write(register::VIRTIO_MMIO_DRIVER_FEATURES_SEL, 1).unwrap();
    write(register::VIRTIO_MMIO_DRIVER_FEATURES, 1).unwrap();
    write(register::VIRTIO_MMIO_STATUS, 0xb).unwrap();
    write(register::VIRTIO_MMIO_QUEUE_DESC_LOW, 0x1000).unwrap();
    write(register::VIRTIO_MMIO_QUEUE_USED_LOW, 0x2000).unwrap();
    let expected = Violation::QueueAddress { queue: 0, part: "available ring", address: 0 };
    let result = write(register::VIRTIO_MMIO_QUEUE_READY, 1);
    assert!(matches!(result, Err(DeviceError::Violation(violation)) if violation == expected), "{result:?}");
}

#[test]
fn a_device_that_was_given_up_or_reset_is_neither_polled_nor_served() {
    let (mut driver, _wire) = Driver::on_wire(16);
    driver.offer(0, 0, &[(BUFFERS, 0x800)], WRITE);
    driver.service().unwrap();
    assert!(driver.transport.readable_fd().is_some());
    driver.write(register::VIRTIO_MMIO_STATUS, 0x8f).unwrap();
    assert!(driver.transport.readable_fd().is_none());

    driver.start(16);
    assert!(driver.transport.readable_fd().is_none(), "nothing is known of the new driver's buffers yet");
    driver.service().unwrap();
    driver.write(register::VIRTIO_MMIO_STATUS, 1).unwrap();
    assert_eq!(driver.read(register::VIRTIO_MMIO_STATUS), 0x4f, "a cleared bit needs a reset");
    assert_eq!(driver.read(register::VIRTIO_MMIO_INTERRUPT_STATUS), 2);
    assert!(driver.transport.readable_fd().is_none());
    driver.negotiate(FEATURES);
    assert_eq!(driver.read(register::VIRTIO_MMIO_INTERRUPT_STATUS), 0);
}

#[test]
fn a_chain_keeps_directions_apart_and_in_order() {
    let (driver, _wire) = Driver::on_wire(16);
    let memory = DmaMemory::new(&driver.memory, 0);
    let walk = |flags: [u16; 3]| {
        let mut queue = Queue::new(16).unwrap();
        let [descriptors, available, used] = QUEUES[1];
        queue.try_set_desc_table_address(GuestAddress(descriptors)).unwrap();
        queue.try_set_avail_ring_address(GuestAddress(available)).unwrap();
        queue.try_set_used_ring_address(GuestAddress(used)).unwrap();
        queue.set_ready(true);
        for (index, (flags, next)) in (0..).zip(flags.into_iter().zip([NEXT, NEXT, 0])) {
            driver.describe(1, index, (BUFFERS, 1 + u32::from(index), flags | next, index + 1));
        }
        driver.put(available + 2, &[1, 0]);
        let mut chain = Chain::default();
        let found = chain.next(&mut queue, 1, memory)?;
        Ok((found, chain.readable.len(), chain.writable.len()))
    };
    assert_eq!(walk([0, 0, WRITE]), Ok((true, 3, 3)));
    assert_eq!(walk([0, WRITE, WRITE]), Ok((true, 1, 5)));
    for flags in [[WRITE, 0, 0], [0, WRITE, 0], [WRITE, WRITE, 0]] {
        assert_eq!(walk(flags), Err(Violation::Direction { queue: 1, head: 0 }));
    }
}

/// What `weir_abi::layout::VIRTIO_NET` promises, so that a guest writes no zeros.
#[test]
fn after_a_reset_a_driver_need_write_only_what_is_not_zero() {
    let activated = Rc::new(Cell::new(None));
    let mut transport = Transport::new(Recorder(Rc::clone(&activated), None), 0).unwrap();
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x1_0000)]).unwrap();
    let mut write = |register: u32, value: u32| {
        transport.write(register.into(), &value.to_le_bytes(), &memory).unwrap();
    };
    write(register::VIRTIO_MMIO_STATUS, 3);
    write(register::VIRTIO_MMIO_DRIVER_FEATURES_SEL, 0);
    for all_ones in [
        register::VIRTIO_MMIO_DRIVER_FEATURES,
        register::VIRTIO_MMIO_QUEUE_DESC_HIGH,
        register::VIRTIO_MMIO_QUEUE_AVAIL_HIGH,
        register::VIRTIO_MMIO_QUEUE_USED_HIGH,
    ] {
        write(all_ones, u32::MAX);
    }
    for (register, value) in [
        (register::VIRTIO_MMIO_STATUS, 0),
        (register::VIRTIO_MMIO_STATUS, 3),
        (register::VIRTIO_MMIO_DRIVER_FEATURES_SEL, 1),
        (register::VIRTIO_MMIO_DRIVER_FEATURES, 1),
        (register::VIRTIO_MMIO_STATUS, 11),
        (register::VIRTIO_MMIO_QUEUE_NUM, 8),
        (register::VIRTIO_MMIO_QUEUE_DESC_LOW, 0x1000),
        (register::VIRTIO_MMIO_QUEUE_AVAIL_LOW, 0x2000),
        (register::VIRTIO_MMIO_QUEUE_USED_LOW, 0x3000),
        (register::VIRTIO_MMIO_QUEUE_READY, 1),
        (register::VIRTIO_MMIO_STATUS, 15),
    ] {
        write(register, value);
    }
    assert_eq!(activated.get(), Some(1 << 32));
}
