//! The transport's registers.

use virtio_bindings::virtio_mmio as register;
use vm_memory::{Bytes, GuestAddress};

use super::LINK;
use super::driver::{Driver, FEATURES, FLOOR, MEMORY, QUEUES};
use crate::virtio::{DeviceError, Violation};

fn violation(result: Result<(), DeviceError>) -> Violation {
    match result {
        Err(DeviceError::Violation(violation)) => violation,
        other => panic!("no violation: {other:?}"),
    }
}

#[test]
fn the_device_says_what_it_is() {
    let mut driver = Driver::reset();
    assert_eq!(driver.read(register::VIRTIO_MMIO_MAGIC_VALUE), 0x7472_6976);
    assert_eq!(driver.read(register::VIRTIO_MMIO_VERSION), 2);
    assert_eq!(driver.read(register::VIRTIO_MMIO_DEVICE_ID), 1);
    assert_eq!(driver.read(register::VIRTIO_MMIO_VENDOR_ID), u32::from_le_bytes(*b"weir"));
    assert_eq!(driver.read(register::VIRTIO_MMIO_SHM_LEN_LOW), u32::MAX);
    let mut features = [0; 3];
    for (select, half) in (0..).zip(&mut features) {
        driver.write(register::VIRTIO_MMIO_DEVICE_FEATURES_SEL, select).unwrap();
        *half = driver.read(register::VIRTIO_MMIO_DEVICE_FEATURES);
    }
    let always = 1 << 3 | 1 << 5 | 1 << 16;
    let offloads = 1 << 0 | 1 << 1 | 1 << 7 | 1 << 11 | 1 << 15;
    assert_eq!(features, [always | offloads, 1, 0], "nothing but MTU, MAC, STATUS, offloads and VERSION_1");
    for (queue, size) in [(0, 256), (1, 256), (2, 0), (u32::MAX, 0)] {
        driver.write(register::VIRTIO_MMIO_QUEUE_SEL, queue).unwrap();
        assert_eq!(driver.read(register::VIRTIO_MMIO_QUEUE_NUM_MAX), size);
    }
}

#[test]
fn the_configuration_is_read_in_any_width_and_ends() {
    let mut driver = Driver::reset();
    let mut config = [0xaa; 16];
    driver.transport.read(0x100, &mut config);
    assert_eq!(config[..6], LINK.mac);
    assert_eq!(config[6..12], [1, 0, 0, 0, 0xdc, 0x05], "link up, no pairs, MTU 1500");
    assert_eq!(config[12..], [0; 4]);
    let mut byte = [0];
    driver.transport.read(0x105, &mut byte);
    assert_eq!(byte, [1]);
    for offset in [0x10b, 0x10c, 0x1000, u64::MAX] {
        let mut bytes = [0xaa; 8];
        driver.transport.read(offset, &mut bytes);
        assert_eq!(bytes[1..], [0; 7]);
    }
}

#[test]
fn accesses_of_another_shape_read_zero_and_write_nothing() {
    let mut driver = Driver::reset();
    driver.negotiate(FEATURES);
    let status = u64::from(register::VIRTIO_MMIO_STATUS);
    for (offset, width) in
        [(status, 1), (status, 2), (status, 8), (status + 1, 4), (status - 2, 4), (status, 0)]
    {
        let mut data = vec![0xaa; width];
        driver.transport.read(offset, &mut data);
        assert!(data.iter().all(|byte| *byte == 0), "{offset:#x} {width}");
        driver.transport.write(offset, &data, &driver.memory).unwrap();
    }
    for offset in [0x14c, 0xfc, 0x1000, u64::MAX - 3, 1 << 32 | status] {
        driver.transport.write(offset, &[0; 4], &driver.memory).unwrap();
    }
    assert_eq!(driver.read(register::VIRTIO_MMIO_STATUS), 0xb);
}

#[test]
fn features_that_were_not_offered_or_lack_version_1_are_refused() {
    for features in
        [0, 1 << 5, FEATURES | 1 << 28, FEATURES | 1 << 29, FEATURES | 1 << 34, FEATURES | 1 << 8, u64::MAX]
    {
        let mut driver = Driver::reset();
        driver.negotiate(features);
        assert_eq!(driver.read(register::VIRTIO_MMIO_STATUS), 3, "{features:#x}");
        driver.write(register::VIRTIO_MMIO_STATUS, 0xf).unwrap();
        assert!(driver.read(register::VIRTIO_MMIO_STATUS) & 0x40 != 0);
        assert_eq!(driver.service().unwrap(), Default::default());
    }
}

#[test]
fn features_are_fixed_once_accepted() {
    let mut driver = Driver::reset();
    driver.negotiate(FEATURES);
    driver.write(register::VIRTIO_MMIO_DRIVER_FEATURES_SEL, 1).unwrap();
    driver.write(register::VIRTIO_MMIO_DRIVER_FEATURES, u32::MAX).unwrap();
    driver.write(register::VIRTIO_MMIO_STATUS, 0xf).unwrap();
    assert_eq!(driver.read(register::VIRTIO_MMIO_STATUS), 0xf);
}

#[test]
fn a_queue_size_must_be_a_power_of_two_up_to_the_maximum() {
    for size in [0, 3, 255, 512, 0x8000, 0x1_0000, 0x1_0100, u32::MAX] {
        let mut driver = Driver::reset();
        driver.negotiate(FEATURES);
        assert_eq!(violation(driver.set_up(1, size, QUEUES[1])), Violation::QueueSize { queue: 1, size });
    }
}

#[test]
fn rings_must_be_aligned_and_in_memory_above_the_floor() {
    let bad: [(usize, &str, &[u64]); 3] = [
        (0, "descriptor table", &[0x2_0008, 0, FLOOR - 16, MEMORY - 240, MEMORY, 1 << 40, u64::MAX - 15]),
        (1, "available ring", &[0x2_2001, 0, FLOOR - 2, MEMORY - 36, MEMORY, 1 << 40, u64::MAX - 1]),
        (2, "used ring", &[0x2_4002, 0, FLOOR - 4, MEMORY - 132, MEMORY, 1 << 40, u64::MAX - 3]),
    ];
    for (which, part, addresses) in bad {
        for address in addresses {
            let mut driver = Driver::reset();
            driver.negotiate(FEATURES);
            let mut rings = QUEUES[0];
            rings[which] = *address;
            let expected = Violation::QueueAddress { queue: 0, part, address: *address };
            assert_eq!(violation(driver.set_up(0, 16, rings)), expected);
            assert_eq!(driver.read(register::VIRTIO_MMIO_QUEUE_READY), 0);
        }
    }
}

#[test]
fn rings_may_end_where_memory_ends() {
    for (which, length) in [(0, 256), (1, 38), (2, 136)] {
        let mut driver = Driver::reset();
        driver.negotiate(FEATURES);
        let mut rings = QUEUES[0];
        rings[which] = MEMORY - length;
        driver.set_up(0, 16, rings).unwrap();
        assert_eq!(driver.read(register::VIRTIO_MMIO_QUEUE_READY), 1);
    }
}

#[test]
fn queues_are_set_up_between_features_and_driver_ok_only() {
    let mut driver = Driver::reset();
    driver.set_up(0, 3, [1, 1, 1]).unwrap();
    assert_eq!(driver.read(register::VIRTIO_MMIO_QUEUE_READY), 0);
    driver.negotiate(FEATURES);
    driver.write(register::VIRTIO_MMIO_STATUS, 0xf).unwrap();
    driver.set_up(0, 16, QUEUES[0]).unwrap();
    assert_eq!(driver.read(register::VIRTIO_MMIO_QUEUE_READY), 0);
    driver.service().unwrap();
}

#[test]
fn queue_ready_takes_one_and_zero_and_nothing_else() {
    let mut driver = Driver::reset();
    driver.negotiate(FEATURES);
    driver.write(register::VIRTIO_MMIO_QUEUE_READY, 2).unwrap();
    driver.write(register::VIRTIO_MMIO_QUEUE_READY, u32::MAX).unwrap();
    assert_eq!(driver.read(register::VIRTIO_MMIO_QUEUE_READY), 0);
    driver.set_up(7, 16, QUEUES[0]).unwrap();
    assert_eq!(driver.read(register::VIRTIO_MMIO_QUEUE_READY), 0);

    let (mut driver, _wire) = Driver::on_wire(16);
    driver.write(register::VIRTIO_MMIO_QUEUE_SEL, 0).unwrap();
    driver.write(register::VIRTIO_MMIO_QUEUE_READY, 0).unwrap();
    assert_eq!(driver.read(register::VIRTIO_MMIO_QUEUE_READY), 0);
    driver.service().unwrap();
    assert!(driver.transport.readable_fd().is_none());
}

#[test]
fn a_live_device_tells_the_driver_not_to_kick() {
    let (driver, _wire) = Driver::on_wire(16);
    for rings in QUEUES {
        assert_eq!(driver.memory.read_obj::<u16>(GuestAddress(rings[2])).unwrap(), 1);
    }
    assert_eq!(driver.transport.notify_offset(), 0x50);
}

#[test]
fn a_reset_forgets_everything() {
    let (mut driver, _wire) = Driver::on_wire(16);
    driver.write(register::VIRTIO_MMIO_STATUS, 0).unwrap();
    assert_eq!(driver.read(register::VIRTIO_MMIO_STATUS), 0);
    for queue in [1, 0] {
        driver.write(register::VIRTIO_MMIO_QUEUE_SEL, queue).unwrap();
        assert_eq!(driver.read(register::VIRTIO_MMIO_QUEUE_READY), 0);
    }
    assert_eq!(driver.service().unwrap(), Default::default());
    driver.write(register::VIRTIO_MMIO_STATUS, 3).unwrap();
    driver.write(register::VIRTIO_MMIO_STATUS, 0xb).unwrap();
    assert_eq!(driver.read(register::VIRTIO_MMIO_STATUS), 3, "features were forgotten too");
}
