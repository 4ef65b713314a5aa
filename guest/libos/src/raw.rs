//! Bare access to the network device, for guests that test how weir takes misuse. Nothing here checks anything.

use alloc::alloc::alloc_zeroed;
use core::alloc::Layout;

use virtio_drivers::transport::{DeviceStatus, Transport};
use weir_abi::{BootInfo, control as abi};

use crate::control;
use crate::net::mmio::Mmio;
use crate::net::offload::HEADER;
use crate::net::rings::{RECEIVE_QUEUE, TRANSMIT_QUEUE};

pub use crate::boot::info;

/// Ring size, entries.
pub const RING: u16 = 64;
/// Descriptor flag: another one follows.
pub const NEXT: u16 = 1;
/// Descriptor flag: the device writes.
pub const WRITE: u16 = 2;

const DESCRIPTORS: usize = 0;
const AVAILABLE: usize = 1024;
const USED: usize = 2048;

/// A transmit queue whose every byte the caller chooses.
pub struct RawQueue {
    page: *mut u8,
    buffers: [*mut u8; RING as usize],
    available: u16,
}

impl RawQueue {
    /// Sets the device that `info` names up, with empty queues; `None`: there is none.
    pub fn open(info: &BootInfo) -> Option<Self> {
        let mut device = Mmio::network(info.virtio_net)?;
        let mut status = DeviceStatus::ACKNOWLEDGE | DeviceStatus::DRIVER;
        device.set_status(DeviceStatus::empty());
        device.set_status(status);
        device.write_driver_features(1 << 32);
        status |= DeviceStatus::FEATURES_OK;
        device.set_status(status);
        let mut pages = [core::ptr::null_mut(); 2];
        for queue in [RECEIVE_QUEUE, TRANSMIT_QUEUE] {
            let page = page();
            let address = page as u64;
            let [available, used] = [AVAILABLE, USED].map(|offset| address + offset as u64);
            device.queue_set(queue, RING.into(), address, available, used);
            pages[usize::from(queue)] = page;
        }
        device.set_status(status | DeviceStatus::DRIVER_OK);
        Some(Self {
            page: pages[usize::from(TRANSMIT_QUEUE)],
            available: 0,
            buffers: [core::ptr::null_mut(); RING as usize],
        })
    }

    /// Writes descriptor `index`.
    pub fn describe(&mut self, index: u16, address: u64, length: u32, flags: u16, next: u16) {
        let at = DESCRIPTORS + usize::from(index % RING) * 16;
        self.put(at, address);
        self.put(at + 8, length);
        self.put(at + 12, flags);
        self.put(at + 14, next);
    }

    /// Makes the chain at descriptor `head` available.
    pub fn offer(&mut self, head: u16) {
        self.put(AVAILABLE + 4 + usize::from(self.available % RING) * 2, head);
        self.jump(1);
    }

    /// Moves the available index on by `count` without filling entries in.
    pub fn jump(&mut self, count: u16) {
        self.available = self.available.wrapping_add(count);
        self.put(AVAILABLE + 2, self.available);
    }

    /// How many more entries the ring takes: those that the device has given back, or never had.
    pub fn free(&self) -> u16 {
        // SAFETY: the offset lies in the page, aligned; the device writes it during PARK only.
        let used = unsafe { core::ptr::read_volatile(self.page.wrapping_add(USED + 2).cast::<u16>()) };
        RING.saturating_sub(self.available.wrapping_sub(used))
    }

    /// Offers `frame` behind an empty virtio header, in the buffer of descriptor `index`.
    pub fn send(&mut self, index: u16, frame: &[u8]) {
        let index = index % RING;
        let slot = &mut self.buffers[usize::from(index)];
        if slot.is_null() {
            *slot = page();
        }
        let buffer = *slot;
        let length = HEADER + frame.len().min(2048);
        // SAFETY: the page is this descriptor's alone and longer than `length`; the device reads it during PARK only.
        unsafe {
            core::ptr::copy_nonoverlapping(frame.as_ptr(), buffer.wrapping_add(HEADER), length - HEADER)
        };
        self.describe(index, buffer as u64, u32::try_from(length).unwrap_or(0), 0, 0);
        self.offer(index);
    }

    fn put<T>(&mut self, offset: usize, value: T) {
        // SAFETY: all offsets lie in the page, aligned for their types; the device reads it during PARK only.
        unsafe { core::ptr::write_volatile(self.page.wrapping_add(offset).cast::<T>(), value) };
    }
}

/// Gives the CPU up once, then never again asks for it.
pub fn park_forever() -> ! {
    loop {
        control::park(abi::PARK_FOREVER);
    }
}

/// Has the VMM serve the queues.
pub fn park_yield() {
    control::park(abi::PARK_YIELD);
}

/// Says READY without listening.
pub fn ready() {
    control::ready();
}

fn page() -> *mut u8 {
    let layout = Layout::new::<[u64; 512]>().align_to(4096).unwrap_or(Layout::new::<[u64; 512]>());
    // SAFETY: the size is not zero.
    let page = unsafe { alloc_zeroed(layout) };
    assert!(!page.is_null(), "out of memory");
    page
}
