//! A driver by the book: 64 receive buffers of 2 KiB, one frame to send at a time.

use std::time::Instant;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use virtio_bindings::virtio_mmio as register;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use weir_net::tap::TapLink;
use weir_vmm::virtio::net::{NetDevice, RX, TX};
use weir_vmm::virtio::{Tap, Transport};
use weir_vmm::{NetLimits, NetSpec};

/// How long something that must come may take, milliseconds; only a failing test takes that long.
const PATIENCE: u16 = 5000;
const SIZE: u16 = 64;
/// Descriptor table, available ring, used ring of both queues.
const QUEUES: [[u64; 3]; 2] = [[0x1000, 0x2000, 0x3000], [0x4000, 0x5000, 0x6000]];
/// Receive buffers of this size, side by side.
const BUFFER: u64 = 2048;
const BUFFERS: u64 = 0x1_0000;
const TO_SEND: u64 = 0x10_0000;
/// VRING_DESC_F_WRITE
const WRITE: u16 = 2;

pub(crate) struct Driver {
    pub(crate) transport: Transport<NetDevice<Tap>>,
    memory: GuestMemoryMmap,
    available: [u16; 2],
    seen: [u16; 2],
}

impl Driver {
    /// A live device on `tap` with `features`.
    pub(crate) fn start(tap: &TapLink, features: u64) -> Self {
        let link = tap.link();
        let spec = NetSpec {
            mac: link.guest_mac,
            address: link.guest,
            prefix: 31,
            gateway: link.host,
            gateway_mac: link.host_mac,
            mtu: 1500,
            limits: NetLimits::NONE,
        };
        let io = Tap::new(tap.fd().try_clone_to_owned().expect("a descriptor"));
        let mut driver = Self {
            transport: Transport::new(NetDevice::new(io, &spec), 0x1000).expect("a device"),
            memory: GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x20_0000)]).expect("memory"),
            available: [0; 2],
            seen: [0; 2],
        };
        driver.bring_up(features);
        for index in 0..SIZE {
            driver.describe(RX, index, BUFFERS + BUFFER * u64::from(index), BUFFER as u32, WRITE);
            driver.publish(RX, index);
        }
        driver
    }

    fn write(&mut self, register: u32, value: u32) {
        self.transport.write(register.into(), &value.to_le_bytes(), &self.memory).expect("a register");
    }

    fn bring_up(&mut self, features: u64) {
        self.write(register::VIRTIO_MMIO_STATUS, 3);
        for (half, bits) in [(0, features as u32), (1, (features >> 32) as u32)] {
            self.write(register::VIRTIO_MMIO_DRIVER_FEATURES_SEL, half);
            self.write(register::VIRTIO_MMIO_DRIVER_FEATURES, bits);
        }
        self.write(register::VIRTIO_MMIO_STATUS, 0xb);
        for (queue, [descriptors, available, used]) in (0..).zip(QUEUES) {
            for (register, value) in [
                (register::VIRTIO_MMIO_QUEUE_SEL, queue),
                (register::VIRTIO_MMIO_QUEUE_NUM, SIZE.into()),
                (register::VIRTIO_MMIO_QUEUE_DESC_LOW, descriptors as u32),
                (register::VIRTIO_MMIO_QUEUE_AVAIL_LOW, available as u32),
                (register::VIRTIO_MMIO_QUEUE_USED_LOW, used as u32),
                (register::VIRTIO_MMIO_QUEUE_READY, 1),
            ] {
                self.write(register, value);
            }
        }
        self.write(register::VIRTIO_MMIO_STATUS, 0xf);
        let mut status = [0; 4];
        self.transport.read(register::VIRTIO_MMIO_STATUS.into(), &mut status);
        assert_eq!(status, [0xf, 0, 0, 0], "the device took features {features:#x}");
    }

    fn describe(&self, queue: u16, index: u16, address: u64, length: u32, flags: u16) {
        let at = GuestAddress(QUEUES[usize::from(queue)][0] + 16 * u64::from(index));
        let words = [address, u64::from(length) | u64::from(flags) << 32];
        self.memory.write_obj(words, at).expect("in memory");
    }

    fn publish(&mut self, queue: u16, head: u16) {
        let ring = QUEUES[usize::from(queue)][1];
        let index = &mut self.available[usize::from(queue)];
        let slot = GuestAddress(ring + 4 + 2 * u64::from(*index % SIZE));
        self.memory.write_obj(head, slot).expect("in memory");
        *index = index.wrapping_add(1);
        self.memory.write_obj(*index, GuestAddress(ring + 2)).expect("in memory");
    }

    fn next_used(&mut self, queue: u16) -> Option<(u16, usize)> {
        let ring = QUEUES[usize::from(queue)][2];
        let end: u16 = self.memory.read_obj(GuestAddress(ring + 2)).expect("in memory");
        let seen = &mut self.seen[usize::from(queue)];
        if *seen == end {
            return None;
        }
        let element = GuestAddress(ring + 4 + 8 * u64::from(*seen % SIZE));
        *seen = seen.wrapping_add(1);
        let [head, length]: [u32; 2] = self.memory.read_obj(element).expect("in memory");
        Some((head as u16, length as usize))
    }

    fn service(&mut self) {
        self.transport.service(&self.memory, Instant::now()).expect("no violation, no broken tap");
    }

    /// Sends `frame`, its header in front.
    pub(crate) fn send(&mut self, frame: &[u8]) {
        self.memory.write_slice(frame, GuestAddress(TO_SEND)).expect("in memory");
        self.describe(TX, 0, TO_SEND, frame.len() as u32, 0);
        self.publish(TX, 0);
        self.service();
        assert_eq!(self.next_used(TX), Some((0, 0)));
    }

    /// The next frame with its header, put together from its buffers; waits for it.
    pub(crate) fn receive(&mut self) -> Vec<u8> {
        let mut frame = self.next_buffer();
        let more = u16::from_le_bytes([frame[10], frame[11]]) - 1;
        for _ in 0..more {
            let (head, length) = self.next_used(RX).expect("all of a frame's buffers at once");
            frame.extend(self.take(head, length));
        }
        frame
    }

    fn next_buffer(&mut self) -> Vec<u8> {
        loop {
            self.service();
            if let Some((head, length)) = self.next_used(RX) {
                return self.take(head, length);
            }
            let fd = self.transport.readable_fd().expect("room in the ring");
            let mut ready = [PollFd::new(fd, PollFlags::POLLIN)];
            assert_eq!(poll(&mut ready, PollTimeout::from(PATIENCE)), Ok(1), "nothing came");
        }
    }

    /// Copies a buffer out and makes it available again.
    fn take(&mut self, head: u16, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        let at = GuestAddress(BUFFERS + BUFFER * u64::from(head));
        self.memory.read_slice(&mut bytes, at).expect("in memory");
        self.publish(RX, head);
        bytes
    }
}
