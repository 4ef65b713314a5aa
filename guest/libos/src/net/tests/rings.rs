//! The driver against a device that is made of a test: rings and buffers in real memory.

use std::sync::atomic::{AtomicU16, Ordering, fence};

use virtio_drivers::transport::{DeviceStatus, DeviceType, InterruptStatus, Transport};
use virtio_drivers::{PhysAddr, Result as VirtioResult};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::*;
use crate::net::offload::{HEADER, Header, feature};
use crate::net::receiver::Receiver;
use crate::net::rings::{DeviceError, QUEUE_SIZE, bring_up};
use crate::net::transmitter::Transmitter;

/// One queue as the device sees it.
#[derive(Clone, Copy, Default)]
struct DeviceQueue {
    descriptors: u64,
    driver: u64,
    device: u64,
    taken: u16,
}

impl DeviceQueue {
    /// The next buffer that the driver has offered: descriptor, address, length.
    fn next(&mut self) -> Option<(u16, u64, u32)> {
        let size = u16::try_from(QUEUE_SIZE).unwrap();
        // SAFETY: the driver has told these addresses, its rings live as long as the test, on this thread.
        let index = unsafe { &*((self.driver + 2) as *const AtomicU16) }.load(Ordering::Acquire);
        if index == self.taken {
            return None;
        }
        let slot = self.driver + 4 + u64::from(self.taken % size) * 2;
        // SAFETY: as above.
        let id = unsafe { std::ptr::read_volatile(slot as *const u16) };
        self.taken = self.taken.wrapping_add(1);
        let descriptor = self.descriptors + u64::from(id % size) * 16;
        // SAFETY: as above.
        let address = unsafe { std::ptr::read_volatile(descriptor as *const u64) };
        // SAFETY: as above.
        let length = unsafe { std::ptr::read_volatile((descriptor + 8) as *const u32) };
        Some((id, address, length))
    }

    /// Gives buffers back, with how many bytes were written to each, all at once.
    fn complete(&mut self, used: &[(u16, u32)]) {
        let size = u16::try_from(QUEUE_SIZE).unwrap();
        // SAFETY: as in `next`.
        let index = unsafe { &*((self.device + 2) as *const AtomicU16) };
        let first = index.load(Ordering::Relaxed);
        for (at, (id, length)) in (first..).zip(used) {
            let slot = (self.device + 4 + u64::from(at % size) * 8) as *mut [u32; 2];
            // SAFETY: as in `next`.
            unsafe { std::ptr::write_volatile(slot, [u32::from(*id), *length]) };
        }
        fence(Ordering::SeqCst);
        index.store(first.wrapping_add(u16::try_from(used.len()).unwrap()), Ordering::Release);
    }
}

#[derive(Default)]
struct Device {
    offers: u64,
    accepted: u64,
    status: DeviceStatus,
    resets: usize,
    queues: [DeviceQueue; 2],
}

impl Device {
    fn open(offers: u64) -> (Self, Receiver, Transmitter) {
        let mut device = Self { offers, ..Self::default() };
        let (receiver, transmitter) = bring_up(&mut device, 1500).unwrap();
        assert!(device.status.contains(DeviceStatus::DRIVER_OK));
        (device, receiver, transmitter)
    }

    /// Delivers `frame` with `flags` in as many buffers as it needs.
    fn deliver(&mut self, frame: &[u8], flags: u8) {
        let mut header = [0; HEADER];
        header[0] = flags;
        let mut bytes = [&header[..], frame].concat();
        let (mut used, mut at) = (Vec::new(), 0);
        let mut first = None;
        while at < bytes.len() {
            let (id, address, room) = self.queues[0].next().expect("a receive buffer");
            let part = &bytes[at..bytes.len().min(at + room as usize)];
            // SAFETY: a buffer that the driver has offered and does not touch meanwhile.
            unsafe { std::ptr::copy_nonoverlapping(part.as_ptr(), address as *mut u8, part.len()) };
            used.push((id, u32::try_from(part.len()).unwrap()));
            first.get_or_insert(address);
            at += part.len();
        }
        bytes.clear();
        let count = u16::try_from(used.len()).unwrap();
        // SAFETY: as above.
        unsafe { std::ptr::write_unaligned((first.unwrap() + 10) as *mut u16, count) };
        self.queues[0].complete(&used);
    }

    /// Takes everything that the driver has sent.
    fn sent(&mut self) -> Vec<(u16, Header, Vec<u8>)> {
        std::iter::from_fn(|| {
            let (id, address, length) = self.queues[1].next()?;
            // SAFETY: a frame that the driver has offered and does not touch meanwhile.
            let bytes = unsafe { std::slice::from_raw_parts(address as *const u8, length as usize) };
            Some((id, Header::decode(bytes), bytes[HEADER..].to_vec()))
        })
        .collect()
    }
}

impl Transport for Device {
    fn device_type(&self) -> DeviceType {
        DeviceType::Network
    }
    fn read_device_features(&mut self) -> u64 {
        panic!("an exit in vain")
    }
    fn write_driver_features(&mut self, features: u64) {
        self.accepted = features;
    }
    fn max_queue_size(&mut self, _queue: u16) -> u32 {
        64
    }
    fn notify(&mut self, _queue: u16) {
        panic!("an exit in vain")
    }
    fn get_status(&self) -> DeviceStatus {
        self.status
    }
    fn set_status(&mut self, status: DeviceStatus) {
        self.resets += usize::from(status.is_empty());
        let refused = self.accepted & !self.offers != 0;
        self.status = if refused { status - DeviceStatus::FEATURES_OK } else { status };
    }
    fn set_guest_page_size(&mut self, _size: u32) {}
    fn requires_legacy_layout(&self) -> bool {
        false
    }
    fn queue_set(
        &mut self,
        queue: u16,
        size: u32,
        descriptors: PhysAddr,
        driver: PhysAddr,
        device: PhysAddr,
    ) {
        assert_eq!(size, 64);
        self.queues[usize::from(queue)] = DeviceQueue { descriptors, driver, device, taken: 0 };
    }
    fn queue_unset(&mut self, _queue: u16) {}
    fn queue_used(&mut self, _queue: u16) -> bool {
        false
    }
    fn ack_interrupt(&mut self) -> InterruptStatus {
        InterruptStatus::empty()
    }
    fn read_config_generation(&self) -> u32 {
        0
    }
    fn read_config_space<T: FromBytes + IntoBytes>(&self, _offset: usize) -> VirtioResult<T> {
        panic!("an exit in vain")
    }
    fn write_config_space<T: IntoBytes + Immutable>(
        &mut self,
        _offset: usize,
        _value: T,
    ) -> VirtioResult<()> {
        panic!("an exit in vain")
    }
}

fn frame(length: usize, mark: u8) -> Vec<u8> {
    (0..length).map(|at| mark ^ at.to_le_bytes()[0] ^ at.to_le_bytes()[1]).collect()
}

fn received(receiver: &mut Receiver) -> Option<(Vec<u8>, bool)> {
    let frame = receiver.peek().map(|frame| (frame.bytes.to_vec(), frame.vouched));
    receiver.release();
    frame
}

#[test]
fn a_device_without_offloads_is_taken_as_it_is() {
    let (device, _receiver, transmitter) = Device::open(feature::VERSION_1);
    assert_eq!((device.accepted, device.resets), (feature::VERSION_1, 2));
    assert!(!transmitter.offers().checksum && transmitter.offers().segment.is_none());
    let (device, _receiver, transmitter) = Device::open(u64::MAX);
    assert_eq!((device.accepted, device.resets), (feature::ALL, 1));
    assert_eq!(transmitter.offers().segment, Some(40 + 44 * 1460));
    let old = bring_up(&mut Device::default(), 1500);
    assert_eq!(old.err(), Some(DeviceError::Features));
}

#[test]
fn frames_of_all_sizes_arrive_whole_wherever_the_buffers_end() {
    let (mut device, mut receiver, _transmitter) = Device::open(u64::MAX);
    assert!(received(&mut receiver).is_none());
    let lengths = [60, 65_000, 1524, 1525, 30_000, 64, 33_000, 3060, 3061, 20_000, 62_000];
    for (mark, length) in (0u8..).zip(lengths.into_iter().cycle().take(200)) {
        let flags = mark % 3;
        device.deliver(&frame(length, mark), flags);
        let (bytes, vouched) = received(&mut receiver).unwrap();
        assert!(bytes == frame(length, mark), "{length} bytes");
        assert_eq!(vouched, flags != 0);
        assert!(received(&mut receiver).is_none());
    }
    // Several at once stay apart.
    device.deliver(&frame(60, 1), 0);
    device.deliver(&frame(9000, 2), 1);
    device.deliver(&frame(60, 3), 0);
    for (length, mark) in [(60, 1), (9000, 2), (60, 3)] {
        assert!(received(&mut receiver).unwrap().0 == frame(length, mark));
    }
}

#[test]
fn a_frame_whose_rest_has_not_come_yet_is_waited_for() {
    let (mut device, mut receiver, _transmitter) = Device::open(u64::MAX);
    let [first, second] = [(); 2].map(|()| device.queues[0].next().unwrap());
    // SAFETY: a buffer that the driver has offered: the header says two buffers.
    unsafe { std::ptr::write_unaligned((first.1 + 10) as *mut u16, 2) };
    device.queues[0].complete(&[(first.0, first.2)]);
    assert!(received(&mut receiver).is_none() && received(&mut receiver).is_none());
    device.queues[0].complete(&[(second.0, 100)]);
    assert_eq!(received(&mut receiver).unwrap().0.len(), first.2 as usize + 100 - HEADER);
}

#[test]
fn lengths_that_a_device_invents_are_harmless() {
    for (length, buffers) in [(0, 1), (u32::MAX, 1), (5, 0), (12, u16::MAX)] {
        let (mut device, mut receiver, _transmitter) = Device::open(u64::MAX);
        for _ in 0..64 {
            let (id, address, _) = device.queues[0].next().unwrap();
            // SAFETY: a buffer that the driver has offered.
            unsafe { std::ptr::write_unaligned((address + 10) as *mut u16, buffers) };
            device.queues[0].complete(&[(id, length)]);
        }
        assert!(received(&mut receiver).is_some());
    }
}

#[test]
fn sending_stops_when_all_is_in_flight_and_goes_on_at_the_warm_end() {
    let (mut device, _receiver, mut transmitter) = Device::open(u64::MAX);
    let send = |transmitter: &mut Transmitter, length: usize, mark: u8| {
        let room = transmitter.has_room();
        if room {
            transmitter.transmit(length, None, |bytes| bytes.copy_from_slice(&frame(length, mark)));
        }
        room
    };
    let count = (0u8..).take_while(|mark| send(&mut transmitter, 60_000, *mark)).count();
    assert_eq!(count, 4);
    assert_eq!(transmitter.discardable(), 0, "not while it is in flight");
    let sent = device.sent();
    assert!((0u8..).zip(&sent).all(|(mark, (_, _, bytes))| *bytes == frame(60_000, mark)));
    for (id, _, _) in sent {
        device.queues[1].complete(&[(id, 0)]);
    }
    assert_eq!((0u8..100).take_while(|mark| send(&mut transmitter, 60, *mark)).count(), 64, "descriptors");
    let sent = device.sent();
    device.queues[1].complete(&sent.iter().map(|(id, ..)| (*id, 0)).collect::<Vec<_>>());
    let mut given = Vec::new();
    assert!(transmitter.discardable() > 3 * 60_000);
    transmitter.discard(&mut |start, length| given.push((start % 4096, length)));
    assert_eq!(given, [(0, (4 * 60_000 + 4 * 64usize).next_multiple_of(4096) - 16 * 1024)]);
    assert_eq!(transmitter.discardable(), 0);
    assert!(send(&mut transmitter, 1000, 9));
    assert_eq!(device.sent()[0].2, frame(1000, 9));
}
