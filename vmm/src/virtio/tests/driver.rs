//! A driver as scripted by a test: it follows the protocol where the test does not want otherwise.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Instant;

use virtio_bindings::virtio_mmio as register;
use virtio_bindings::virtio_ring::{VRING_DESC_F_NEXT, VRING_DESC_F_WRITE};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::LINK;
use super::fake::{FakeIo, Wire};
use crate::spec::NetSpec;
use crate::virtio::net::{FrameIo, NetDevice};
use crate::virtio::{DeviceError, Progress, RestoreError, Transport};

/// Size of guest memory, bytes.
pub(super) const MEMORY: u64 = 0x20_0000;
/// Nothing below it may be touched by a device.
pub(super) const FLOOR: u64 = 0x1_0000;
/// Where the queues are: descriptor table, available ring, used ring of each.
pub(super) const QUEUES: [[u64; 3]; 2] = [[0x2_0000, 0x2_2000, 0x2_4000], [0x3_0000, 0x3_2000, 0x3_4000]];
/// Free for buffers, to the end of memory.
pub(super) const BUFFERS: u64 = 0x4_0000;
/// VERSION_1 and MAC.
pub(super) const FEATURES: u64 = 1 << 32 | 1 << 5;
pub(super) const NEXT: u16 = VRING_DESC_F_NEXT as u16;
pub(super) const WRITE: u16 = VRING_DESC_F_WRITE as u16;

/// Address, length, flags, next.
pub(super) type Descriptor = (u64, u32, u16, u16);

pub(super) struct Driver<I> {
    pub(super) transport: Transport<NetDevice<I>>,
    pub(super) memory: GuestMemoryMmap,
    /// What the clock shows; it stands still unless a test moves it.
    pub(super) now: Instant,
    size: u16,
    available: [u16; 2],
    used: [u16; 2],
}

impl Driver<FakeIo> {
    /// A live device with queues of `size` descriptors, on a wire in memory.
    pub(super) fn on_wire(size: u16) -> (Self, Rc<RefCell<Wire>>) {
        Self::with_features(FEATURES, size)
    }

    /// The same, after agreeing on `features`.
    pub(super) fn with_features(features: u64, size: u16) -> (Self, Rc<RefCell<Wire>>) {
        let (io, wire) = FakeIo::new();
        let mut driver = Self::fresh(io);
        driver.start_with(features, size);
        (driver, wire)
    }

    /// A device after reset.
    pub(super) fn reset() -> Self {
        Self::fresh(FakeIo::new().0)
    }
}

impl<I: FrameIo> Driver<I> {
    pub(super) fn fresh(io: I) -> Self {
        Self::on_link(io, &LINK)
    }

    pub(super) fn on_link(io: I, link: &NetSpec) -> Self {
        Self {
            transport: Transport::new(NetDevice::new(io, link), FLOOR).unwrap(),
            now: Instant::now(),
            memory: GuestMemoryMmap::from_ranges(&[(GuestAddress(0), MEMORY as usize)]).unwrap(),
            size: 0,
            available: [0; 2],
            used: [0; 2],
        }
    }

    /// A copy of the guest whose device, on `io`, was restored from the state of this one's.
    pub(super) fn cloned(&self, io: I) -> Result<Self, RestoreError> {
        let bytes = postcard::to_stdvec(&self.transport.state()).unwrap();
        let state = postcard::from_bytes(&bytes).unwrap();
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), MEMORY as usize)]).unwrap();
        memory.write_slice(&self.get(0, MEMORY as usize), GuestAddress(0)).unwrap();
        let transport = Transport::restore(NetDevice::new(io, &LINK), FLOOR, &state, &memory)?;
        Ok(Self {
            transport,
            memory,
            now: self.now,
            size: self.size,
            available: self.available,
            used: self.used,
        })
    }

    pub(super) fn start(&mut self, size: u16) {
        self.start_with(FEATURES, size);
    }

    pub(super) fn start_with(&mut self, features: u64, size: u16) {
        self.negotiate(features);
        for queue in 0..2 {
            self.set_up(queue, size.into(), QUEUES[queue as usize]).unwrap();
        }
        self.write(register::VIRTIO_MMIO_STATUS, 0xf).unwrap();
        self.size = size;
    }

    pub(super) fn read(&mut self, register: u32) -> u32 {
        let mut data = [0xaa; 4];
        self.transport.read(register.into(), &mut data);
        u32::from_le_bytes(data)
    }

    pub(super) fn write(&mut self, register: u32, value: u32) -> Result<(), DeviceError> {
        self.transport.write(register.into(), &value.to_le_bytes(), &self.memory)
    }

    /// Up to FEATURES_OK.
    pub(super) fn negotiate(&mut self, features: u64) {
        for (register, value) in [
            (register::VIRTIO_MMIO_STATUS, 0),
            (register::VIRTIO_MMIO_STATUS, 1),
            (register::VIRTIO_MMIO_STATUS, 3),
            (register::VIRTIO_MMIO_DRIVER_FEATURES_SEL, 0),
            (register::VIRTIO_MMIO_DRIVER_FEATURES, features as u32),
            (register::VIRTIO_MMIO_DRIVER_FEATURES_SEL, 1),
            (register::VIRTIO_MMIO_DRIVER_FEATURES, (features >> 32) as u32),
            (register::VIRTIO_MMIO_STATUS, 0xb),
        ] {
            self.write(register, value).unwrap();
        }
    }

    pub(super) fn set_up(&mut self, queue: u32, size: u32, rings: [u64; 3]) -> Result<(), DeviceError> {
        let [descriptors, available, used] = rings;
        for (register, value) in [
            (register::VIRTIO_MMIO_QUEUE_SEL, queue),
            (register::VIRTIO_MMIO_QUEUE_NUM, size),
            (register::VIRTIO_MMIO_QUEUE_DESC_LOW, descriptors as u32),
            (register::VIRTIO_MMIO_QUEUE_DESC_HIGH, (descriptors >> 32) as u32),
            (register::VIRTIO_MMIO_QUEUE_AVAIL_LOW, available as u32),
            (register::VIRTIO_MMIO_QUEUE_AVAIL_HIGH, (available >> 32) as u32),
            (register::VIRTIO_MMIO_QUEUE_USED_LOW, used as u32),
            (register::VIRTIO_MMIO_QUEUE_USED_HIGH, (used >> 32) as u32),
        ] {
            self.write(register, value).unwrap();
        }
        self.write(register::VIRTIO_MMIO_QUEUE_READY, 1)
    }

    pub(super) fn service(&mut self) -> Result<Progress, DeviceError> {
        self.transport.service(&self.memory, self.now)
    }

    /// Writes descriptor `index`.
    pub(super) fn describe(&self, queue: u16, index: u16, descriptor: Descriptor) {
        let at = GuestAddress(QUEUES[usize::from(queue)][0] + 16 * u64::from(index));
        let (address, length, flags, next) = descriptor;
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&address.to_le_bytes());
        bytes[8..12].copy_from_slice(&length.to_le_bytes());
        bytes[12..14].copy_from_slice(&flags.to_le_bytes());
        bytes[14..].copy_from_slice(&next.to_le_bytes());
        self.memory.write_slice(&bytes, at).unwrap();
    }

    /// Makes the chain that begins at descriptor `head` available.
    pub(super) fn publish(&mut self, queue: u16, head: u16) {
        let index = &mut self.available[usize::from(queue)];
        let ring = QUEUES[usize::from(queue)][1];
        self.memory.write_obj(head, GuestAddress(ring + 4 + 2 * u64::from(*index % self.size))).unwrap();
        *index = index.wrapping_add(1);
        self.memory.write_obj(*index, GuestAddress(ring + 2)).unwrap();
    }

    pub(super) fn set_available_flags(&self, queue: u16, flags: u16) {
        self.memory.write_obj(flags, GuestAddress(QUEUES[usize::from(queue)][1])).unwrap();
    }

    /// Describes a chain of `buffers` (address, length), from descriptor `head` on, and makes it available.
    pub(super) fn offer(&mut self, queue: u16, head: u16, buffers: &[(u64, u32)], flags: u16) {
        for (position, (address, length)) in buffers.iter().enumerate() {
            let index = head + position as u16;
            let next = if position + 1 < buffers.len() { NEXT } else { 0 };
            self.describe(queue, index, (*address, *length, flags | next, index + 1));
        }
        self.publish(queue, head);
    }

    /// What came back on the used ring since the last call: head and length of each.
    pub(super) fn take_used(&mut self, queue: u16) -> Vec<(u32, u32)> {
        let ring = QUEUES[usize::from(queue)][2];
        let end: u16 = self.memory.read_obj(GuestAddress(ring + 2)).unwrap();
        let mut taken = Vec::new();
        let seen = &mut self.used[usize::from(queue)];
        while *seen != end {
            let element = ring + 4 + 8 * u64::from(*seen % self.size);
            let head = self.memory.read_obj(GuestAddress(element)).unwrap();
            taken.push((head, self.memory.read_obj(GuestAddress(element + 4)).unwrap()));
            *seen = seen.wrapping_add(1);
        }
        taken
    }

    /// Copies `bytes` into guest memory at `address`.
    pub(super) fn put(&self, address: u64, bytes: &[u8]) {
        self.memory.write_slice(bytes, GuestAddress(address)).unwrap();
    }

    /// Reads `length` bytes of guest memory.
    pub(super) fn get(&self, address: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.memory.read_slice(&mut bytes, GuestAddress(address)).unwrap();
        bytes
    }
}
