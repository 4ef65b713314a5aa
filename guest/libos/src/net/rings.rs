//! The network device: its features, its two virtqueues, and the memory that they move.
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

use super::ethernet::{HEADER as ETHERNET_HEADER, Offers};
use super::mmio::Mmio;
use super::offload::{HEADER, feature};
use super::receiver::Receiver;
use super::transmitter::Transmitter;

/// Descriptors per queue, one per packet. The largest batch between two PARKs.
pub(crate) const QUEUE_SIZE: usize = 64;
/// Index of the receive queue.
pub(crate) const RECEIVE_QUEUE: u16 = 0;
/// Index of the transmit queue.
pub(crate) const TRANSMIT_QUEUE: u16 = 1;
/// Largest IP packet that can be (RFC 791, 3.1), bytes.
const IP_MAX: usize = 65_535;
/// So many of the largest frames can be on their way at once, if the device segments them. They are touched as needed.
const LARGE_FRAMES: usize = 4;
/// Receive buffers are a multiple of this, bytes.
const GRAIN: usize = 512;

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

/// Memory that is shared with the device. Never moved, never freed, and its pages are not touched before they are used.
pub(super) struct Memory {
    base: NonNull<u8>,
    size: usize,
}

impl Memory {
    /// `size` zeroed bytes, page-aligned.
    pub(super) fn new(size: usize) -> Self {
        let layout = Layout::from_size_align(size.max(1), PAGE_SIZE).unwrap_or(Layout::new::<u64>());
        // SAFETY: the size is not zero.
        let base =
            NonNull::new(unsafe { alloc_zeroed(layout) }).unwrap_or_else(|| handle_alloc_error(layout));
        Self { base, size: layout.size() }
    }

    /// Address of the first byte.
    pub(super) fn start(&self) -> usize {
        self.base.as_ptr() as usize
    }

    /// `length` bytes at `offset`, fewer at the end.
    ///
    /// # Safety
    /// None of these bytes is with the device, and no other reference to them exists.
    #[expect(
        clippy::mut_from_ref,
        reason = "the bytes lie behind a pointer; the contract makes the reference exclusive"
    )]
    pub(super) unsafe fn get(&self, offset: usize, length: usize) -> &mut [u8] {
        let offset = offset.min(self.size);
        let length = length.min(self.size - offset);
        // SAFETY: inside the block of `new`; exclusive by the caller's promise.
        unsafe { core::slice::from_raw_parts_mut(self.base.as_ptr().wrapping_add(offset), length) }
    }
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
    bring_up(&mut Mmio::network(base).ok_or(DeviceError::Missing)?, mtu)
}

/// What [`open`] does, with any transport.
pub(super) fn bring_up(
    device: &mut impl Transport,
    mtu: u16,
) -> Result<(Receiver, Transmitter), DeviceError> {
    // Which features there are is not read, an exit each: if the device has not all of them, it says so.
    // A build for benchmarks never asks for offloads.
    let wanted: &[u64] = match cfg!(weir_plain_net) {
        true => &[feature::VERSION_1],
        false => &[feature::ALL, feature::VERSION_1],
    };
    let (features, status) = wanted
        .iter()
        .find_map(|&features| Some((features, negotiate(device, features)?)))
        .ok_or(DeviceError::Features)?;
    let receive = VirtQueue::new(device, RECEIVE_QUEUE, false, false).map_err(|_| DeviceError::Queue)?;
    let mut transmit =
        VirtQueue::new(device, TRANSMIT_QUEUE, false, false).map_err(|_| DeviceError::Queue)?;
    // That a frame is sent is no reason to wake up: finished ones are collected before the next are queued.
    transmit.set_dev_notify(false);
    device.set_status(status | DeviceStatus::DRIVER_OK);

    let frame = HEADER + ETHERNET_HEADER + usize::from(mtu);
    let receiver = Receiver::new(receive, frame.next_multiple_of(GRAIN), features & feature::MRG_RXBUF != 0);
    let transmitter = match features & feature::HOST_TSO4 {
        0 => Transmitter::new(transmit, frame, QUEUE_SIZE, Offers::default()),
        _ => {
            let offers = Offers { checksum: true, segment: Some(largest_packet(mtu)) };
            Transmitter::new(transmit, HEADER + ETHERNET_HEADER + IP_MAX, LARGE_FRAMES, offers)
        }
    };
    Ok((receiver, transmitter))
}

/// Resets the device and accepts `features`; `None`: it does not have them.
fn negotiate(device: &mut impl Transport, features: u64) -> Option<DeviceStatus> {
    device.set_status(DeviceStatus::empty());
    let mut status = DeviceStatus::ACKNOWLEDGE | DeviceStatus::DRIVER;
    device.set_status(status);
    device.write_driver_features(features);
    status |= DeviceStatus::FEATURES_OK;
    device.set_status(status);
    device.get_status().contains(DeviceStatus::FEATURES_OK).then_some(status)
}

/// The largest IP packet that segments of a link with this `mtu` make up without a small one at the end, bytes.
fn largest_packet(mtu: u16) -> usize {
    /// IPv4 and TCP header without options, bytes.
    const HEADERS: usize = 40;
    let segment = usize::from(mtu).saturating_sub(HEADERS).max(1);
    HEADERS + (IP_MAX - HEADERS) / segment * segment
}
