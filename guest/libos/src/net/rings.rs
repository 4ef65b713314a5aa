//! The network device's two virtqueues and their packet buffers.
//!
//! On top of `virtio-drivers`' virtqueue rather than its network driver: that one reads what boot-info already says
//! (an exit of 30 us per register) and kicks the device for each packet, where one PARK serves the whole batch.
//! All memory is identity-mapped, so an address is what the device needs. Buffers never move and are never freed.

use alloc::alloc::{alloc_zeroed, dealloc, handle_alloc_error};
use core::alloc::Layout;
use core::ptr::NonNull;

use virtio_drivers::queue::VirtQueue;
use virtio_drivers::transport::{DeviceStatus, Transport};
use virtio_drivers::{BufferDirection, Hal, PAGE_SIZE, PhysAddr};

use super::ethernet::{Receive, Transmit};
use super::mmio::Mmio;

/// Descriptors per queue, one per packet. The largest batch between two PARKs.
pub(crate) const QUEUE_SIZE: usize = 64;
/// struct virtio_net_hdr_v1 (virtio 1.2, 5.1.6). All zero: one whole packet, nothing offloaded.
pub(crate) const HEADER: usize = 12;
/// Index of the receive queue.
pub(crate) const RECEIVE_QUEUE: u16 = 0;
/// Index of the transmit queue.
pub(crate) const TRANSMIT_QUEUE: u16 = 1;
const VERSION_1: u64 = 1 << 32;

/// Memory for `virtio-drivers`: physical is virtual.
pub(crate) struct Identity;

fn pages(count: usize) -> Option<Layout> {
    Layout::from_size_align(count.checked_mul(PAGE_SIZE)?, PAGE_SIZE).ok()
}

// SAFETY: `dma_alloc` returns fresh, zeroed, page-aligned blocks from the global allocator, or address 0.
unsafe impl Hal for Identity {
    fn dma_alloc(count: usize, _direction: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        let block = match pages(count) {
            // SAFETY: virtqueues ask for at least one page.
            Some(layout) if count > 0 => NonNull::new(unsafe { alloc_zeroed(layout) }),
            _ => None,
        };
        block.map_or((0, NonNull::dangling()), |block| (block.as_ptr() as PhysAddr, block))
    }

    unsafe fn dma_dealloc(_address: PhysAddr, block: NonNull<u8>, count: usize) -> i32 {
        if let Some(layout) = pages(count) {
            // SAFETY: the caller passes back what `dma_alloc` gave for `count`.
            unsafe { dealloc(block.as_ptr(), layout) };
        }
        0
    }

    unsafe fn mmio_phys_to_virt(address: PhysAddr, _size: usize) -> NonNull<u8> {
        NonNull::new(address as *mut u8).unwrap_or(NonNull::dangling())
    }

    unsafe fn share(buffer: NonNull<[u8]>, _direction: BufferDirection) -> PhysAddr {
        buffer.as_ptr().cast::<u8>() as PhysAddr
    }

    unsafe fn unshare(_address: PhysAddr, _buffer: NonNull<[u8]>, _direction: BufferDirection) {}
}

/// Equal packet buffers side by side, and which of them each descriptor in flight belongs to.
struct Buffers {
    base: NonNull<u8>,
    size: usize,
    owner: [u8; QUEUE_SIZE],
}

impl Buffers {
    /// Zeroed buffers of `size` bytes each; their pages are not touched.
    fn new(size: usize) -> Self {
        let layout = Layout::from_size_align(size * QUEUE_SIZE, 64).unwrap_or(Layout::new::<u64>());
        // SAFETY: the size is not zero.
        let base =
            NonNull::new(unsafe { alloc_zeroed(layout) }).unwrap_or_else(|| handle_alloc_error(layout));
        Self { base, size, owner: [0; QUEUE_SIZE] }
    }

    /// # Safety
    /// The buffer is not with the device, and no other reference to it exists.
    #[expect(
        clippy::mut_from_ref,
        reason = "the buffers lie behind a pointer; the contract makes it exclusive"
    )]
    unsafe fn get(&self, index: u8) -> &mut [u8] {
        let start = self.base.as_ptr().wrapping_add(usize::from(index) % QUEUE_SIZE * self.size);
        // SAFETY: one of QUEUE_SIZE buffers, so inside the block of `new`; exclusive by the caller's promise.
        unsafe { core::slice::from_raw_parts_mut(start, self.size) }
    }

    fn owner(&self, token: u16) -> u8 {
        self.owner[usize::from(token) % QUEUE_SIZE]
    }
}

/// Packets from the device.
pub(crate) struct Receiver {
    queue: VirtQueue<Identity, QUEUE_SIZE>,
    buffers: Buffers,
    /// Taken from the used ring, not yet released: buffer and length with header.
    current: Option<(u8, usize)>,
}

/// Packets to the device.
pub(crate) struct Transmitter {
    queue: VirtQueue<Identity, QUEUE_SIZE>,
    buffers: Buffers,
    /// Buffers that are not with the device; the last one used is on top, its pages warm.
    free: alloc::vec::Vec<u8>,
}

/// Why the network device cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceError {
    /// No virtio network device stands at the address in boot-info.
    Missing,
    /// The device is none of virtio 1.x.
    Features,
    /// A queue could not be set up.
    Queue,
}

/// Sets the device at `base` up, for IP packets up to `mtu` bytes.
///
/// # Errors
/// [`DeviceError`]
pub(crate) fn open(base: u64, mtu: u16) -> Result<(Receiver, Transmitter), DeviceError> {
    let mut transport = Mmio::network(base).ok_or(DeviceError::Missing)?;
    let mut status = DeviceStatus::empty();
    transport.set_status(status);
    status |= DeviceStatus::ACKNOWLEDGE | DeviceStatus::DRIVER;
    transport.set_status(status);
    transport.write_driver_features(VERSION_1);
    status |= DeviceStatus::FEATURES_OK;
    transport.set_status(status);
    if !transport.get_status().contains(DeviceStatus::FEATURES_OK) {
        return Err(DeviceError::Features);
    }
    let receive =
        VirtQueue::new(&mut transport, RECEIVE_QUEUE, false, false).map_err(|_| DeviceError::Queue)?;
    let mut transmit =
        VirtQueue::new(&mut transport, TRANSMIT_QUEUE, false, false).map_err(|_| DeviceError::Queue)?;
    // That a frame is sent is no reason to wake up: finished ones are collected before the next are queued.
    transmit.set_dev_notify(false);
    transport.set_status(status | DeviceStatus::DRIVER_OK);

    let size = (HEADER + super::ethernet::HEADER + usize::from(mtu)).next_multiple_of(512);
    let mut receiver = Receiver { queue: receive, buffers: Buffers::new(size), current: None };
    let indices = 0..u8::try_from(QUEUE_SIZE).unwrap_or(u8::MAX);
    indices.clone().for_each(|index| receiver.offer(index));
    let transmitter =
        Transmitter { queue: transmit, buffers: Buffers::new(size), free: indices.rev().collect() };
    Ok((receiver, transmitter))
}

impl Receiver {
    fn offer(&mut self, index: u8) {
        // SAFETY: the buffer is not with the device: it is new, or was just taken from the used ring.
        let buffer = unsafe { self.buffers.get(index) };
        // SAFETY: only `peek` touches the buffer again, after it has come back over the used ring.
        if let Ok(token) = unsafe { self.queue.add(&[], &mut [buffer]) } {
            self.buffers.owner[usize::from(token) % QUEUE_SIZE] = index;
        }
    }

    fn take(&mut self) -> Option<(u8, usize)> {
        let token = self.queue.peek_used()?;
        let index = self.buffers.owner(token);
        // SAFETY: the device has put the buffer on the used ring, so it is ours again.
        let buffer = unsafe { self.buffers.get(index) };
        let room = buffer.len();
        // SAFETY: the very buffer that was added under this token.
        let length = unsafe { self.queue.pop_used(token, &[], &mut [buffer]) }.ok()?;
        Some((index, room.min(usize::try_from(length).unwrap_or(room))))
    }
}

impl Receive for Receiver {
    fn peek(&mut self) -> Option<&[u8]> {
        if self.current.is_none() {
            self.current = self.take();
        }
        let (index, length) = self.current?;
        // SAFETY: the buffer is ours until `release`, which needs the same `&mut self` as this borrow.
        let buffer = unsafe { self.buffers.get(index) };
        Some(buffer.get(HEADER..length).unwrap_or_default())
    }

    fn release(&mut self) {
        if let Some((index, _)) = self.current.take() {
            self.offer(index);
        }
    }
}

impl Transmitter {
    fn reclaim(&mut self) {
        while let Some(token) = self.queue.peek_used() {
            let index = self.buffers.owner(token);
            // SAFETY: the device has put the buffer on the used ring, so it is ours again.
            let buffer = unsafe { self.buffers.get(index) };
            // SAFETY: the very buffer that was added under this token; `add` saw a shorter part of it, and of a
            // buffer's length the queue uses only that it is not zero.
            if unsafe { self.queue.pop_used(token, &[buffer], &mut []) }.is_err() {
                return;
            }
            self.free.push(index);
        }
    }
}

impl Transmit for Transmitter {
    fn has_room(&mut self) -> bool {
        if self.free.len() < QUEUE_SIZE / 2 {
            self.reclaim();
        }
        !self.free.is_empty()
    }

    fn transmit<R>(&mut self, length: usize, fill: impl FnOnce(&mut [u8]) -> R) -> R {
        let index = self.free.pop().expect("the caller has asked `has_room`");
        // SAFETY: buffers on the free list are not with the device.
        let buffer = unsafe { self.buffers.get(index) };
        let packet = &mut buffer[..HEADER + length];
        let result = fill(&mut packet[HEADER..]);
        // The virtio header in front is zero since the start: nothing ever writes it.
        // SAFETY: the buffer is touched again only after it has come back over the used ring.
        match unsafe { self.queue.add(&[packet], &mut []) } {
            Ok(token) => self.buffers.owner[usize::from(token) % QUEUE_SIZE] = index,
            Err(_) => self.free.push(index),
        }
        result
    }
}
