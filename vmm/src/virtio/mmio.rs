//! The virtio-mmio transport: one page of registers in front of one device (virtio 1.2, section 4.2.2).
//!
//! Its life follows the status register, see `status.rs`. Register accesses that make no sense (another width
//! than 4 bytes, unaligned, unknown, out of turn) read as zero and write nothing.

mod state;

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Instant;

use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_mmio as register;
use virtio_queue::{Queue, QueueT};
use vm_memory::GuestMemoryMmap;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::queue::QueueSetup;
use super::status::{Status, Transition};
use super::{DeviceError, DmaMemory, Progress, Violation, VirtioDevice};
pub use state::{RestoreError, TransportState};

/// "virt", little-endian.
const MAGIC: u32 = 0x7472_6976;
/// The only version since virtio 1.0.
const VERSION: u32 = 2;
/// "weir", little-endian.
const VENDOR: u32 = u32::from_le_bytes(*b"weir");
/// What the registers of a shared memory region that does not exist read as.
const NO_SHARED_MEMORY: u32 = u32::MAX;

/// One device with its registers and queues.
#[derive(Debug)]
pub struct Transport<D> {
    device: D,
    dma_floor: u64,
    notify: EventFd,
    status: Status,
    interrupt_status: u32,
    device_features_select: u32,
    driver_features_select: u32,
    driver_features: u64,
    queue_select: u32,
    setups: Vec<QueueSetup>,
    queues: Vec<Queue>,
}

impl<D: VirtioDevice> Transport<D> {
    /// Puts `device` behind registers. It will not touch guest memory below the address `dma_floor`, see
    /// [`super::dma`].
    ///
    /// # Errors
    /// If the kernel has no eventfd left.
    pub fn new(device: D, dma_floor: u64) -> io::Result<Self> {
        let sizes = device.queue_sizes();
        let queue = |size: &u16| Queue::new(*size).expect("a device's queue sizes are powers of two");
        Ok(Self {
            dma_floor,
            notify: EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?,
            status: Status::default(),
            interrupt_status: 0,
            device_features_select: 0,
            driver_features_select: 0,
            driver_features: 0,
            queue_select: 0,
            setups: sizes.iter().copied().map(QueueSetup::new).collect(),
            queues: sizes.iter().map(queue).collect(),
            device,
        })
    }

    /// The device.
    pub fn device(&self) -> &D {
        &self.device
    }

    /// Offset of QueueNotify, where [`Self::notify_fd`] is to be registered as ioeventfd.
    pub const fn notify_offset(&self) -> u64 {
        register::VIRTIO_MMIO_QUEUE_NOTIFY as u64
    }

    /// What a kick of any queue signals, to be registered without datamatch. It only keeps a kick from leaving the
    /// guest: nobody needs to read it, because PARK implies a kick of all queues.
    pub fn notify_fd(&self) -> &EventFd {
        &self.notify
    }

    /// To be polled for reading while the guest sleeps, as of the last [`Self::service`]. `None`: no buffer to receive
    /// into, or no more to be received before [`Self::deadline`], so that what arrives waits in the TAP's own queue.
    pub fn readable_fd(&self) -> Option<BorrowedFd<'_>> {
        self.device.readable_fd().filter(|_| self.status.live())
    }

    /// To be polled for writing while the guest sleeps, as of the last [`Self::service`]. Mostly `None`.
    pub fn writable_fd(&self) -> Option<BorrowedFd<'_>> {
        self.device.writable_fd().filter(|_| self.status.live())
    }

    /// When to call [`Self::service`] again though no descriptor is ready, as of its last call: a limit of the link
    /// keeps something waiting until then. Mostly `None`.
    pub fn deadline(&self) -> Option<Instant> {
        self.device.deadline().filter(|_| self.status.live())
    }

    /// Does a bounded amount of the work that the rings ask for, at the time `now`. Nothing before DRIVER_OK.
    ///
    /// # Errors
    /// If the guest broke the ring protocol, or the host's side failed: either ends the VM.
    pub fn service(&mut self, memory: &GuestMemoryMmap, now: Instant) -> Result<Progress, DeviceError> {
        if !self.status.live() {
            return Ok(Progress::default());
        }
        let progress = self.device.service(&mut self.queues, DmaMemory::new(memory, self.dma_floor), now)?;
        if progress.rx_delivered > 0 || progress.tx_completed > 0 {
            self.interrupt_status |= register::VIRTIO_MMIO_INT_VRING;
        }
        Ok(progress)
    }

    /// The guest reads `data.len()` bytes at `offset` of the page.
    pub fn read(&mut self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        if let Some(offset) = offset.checked_sub(register::VIRTIO_MMIO_CONFIG.into()) {
            let config = usize::try_from(offset).ok().and_then(|offset| self.device.config().get(offset..));
            for (to, from) in data.iter_mut().zip(config.unwrap_or_default()) {
                *to = *from;
            }
        } else if let (Some(register), Ok(data)) = (aligned(offset), <&mut [u8; 4]>::try_from(data)) {
            *data = self.read_register(register).to_le_bytes();
        }
    }

    fn read_register(&self, register: u32) -> u32 {
        match register {
            register::VIRTIO_MMIO_MAGIC_VALUE => MAGIC,
            register::VIRTIO_MMIO_VERSION => VERSION,
            register::VIRTIO_MMIO_DEVICE_ID => self.device.device_id(),
            register::VIRTIO_MMIO_VENDOR_ID => VENDOR,
            register::VIRTIO_MMIO_DEVICE_FEATURES => half(self.offered(), self.device_features_select),
            register::VIRTIO_MMIO_QUEUE_NUM_MAX => {
                self.selected().map_or(0, |i| self.queues[i].max_size().into())
            }
            register::VIRTIO_MMIO_QUEUE_READY => self.selected().map_or(0, |i| self.queues[i].ready().into()),
            register::VIRTIO_MMIO_INTERRUPT_STATUS => self.interrupt_status,
            register::VIRTIO_MMIO_STATUS => self.status.bits(),
            register::VIRTIO_MMIO_SHM_LEN_LOW..=register::VIRTIO_MMIO_SHM_BASE_HIGH => NO_SHARED_MEMORY,
            _ => 0,
        }
    }

    /// The guest writes `data` at `offset` of the page.
    ///
    /// # Errors
    /// If it makes a queue ready that cannot be one.
    pub fn write(&mut self, offset: u64, data: &[u8], memory: &GuestMemoryMmap) -> Result<(), DeviceError> {
        let (Some(register), Ok(data)) = (aligned(offset), <[u8; 4]>::try_from(data)) else { return Ok(()) };
        let value = u32::from_le_bytes(data);
        match register {
            register::VIRTIO_MMIO_DEVICE_FEATURES_SEL => self.device_features_select = value,
            register::VIRTIO_MMIO_DRIVER_FEATURES_SEL => self.driver_features_select = value,
            register::VIRTIO_MMIO_DRIVER_FEATURES if self.status.negotiating() => {
                set_half(&mut self.driver_features, self.driver_features_select, value);
            }
            register::VIRTIO_MMIO_QUEUE_SEL => self.queue_select = value,
            register::VIRTIO_MMIO_QUEUE_READY => self.write_queue_ready(value, memory)?,
            register::VIRTIO_MMIO_INTERRUPT_ACK => self.interrupt_status &= !value,
            register::VIRTIO_MMIO_STATUS => self.write_status(value, memory)?,
            _ => self.write_queue_setup(register, value),
        }
        Ok(())
    }

    fn write_status(&mut self, value: u32, memory: &GuestMemoryMmap) -> Result<(), DeviceError> {
        match self.status.write(value, self.acceptable()) {
            Transition::None => {}
            Transition::NeedsReset => self.interrupt_status |= register::VIRTIO_MMIO_INT_CONFIG,
            Transition::Reset => {
                self.forget();
                self.device.reset()?;
            }
            Transition::Activate => {
                for (index, queue) in (0..).zip(&mut self.queues).filter(|(_, queue)| queue.ready()) {
                    // PARK implies a kick, so the driver need not send any.
                    queue.disable_notification(memory).map_err(|_| Violation::Ring { queue: index })?;
                }
                self.device.activate(self.driver_features)?;
            }
        }
        Ok(())
    }

    /// The registers and queues after a reset.
    fn forget(&mut self) {
        self.status = Status::default();
        self.interrupt_status = 0;
        self.device_features_select = 0;
        self.driver_features_select = 0;
        self.driver_features = 0;
        self.queue_select = 0;
        for (setup, queue) in self.setups.iter_mut().zip(&mut self.queues) {
            queue.reset();
            *setup = QueueSetup::new(queue.max_size());
        }
    }

    fn write_queue_ready(&mut self, value: u32, memory: &GuestMemoryMmap) -> Result<(), Violation> {
        let Some(index) = self.selected() else { return Ok(()) };
        let queue = &mut self.queues[index];
        match value {
            0 => queue.reset(),
            1 if !queue.ready() && self.status.configuring() => {
                let number = u16::try_from(index).expect("a device has fewer than 65536 queues");
                self.setups[index].apply(queue, number, DmaMemory::new(memory, self.dma_floor))?;
            }
            _ => {}
        }
        Ok(())
    }

    fn write_queue_setup(&mut self, register: u32, value: u32) {
        let Some(index) = self.selected() else { return };
        let setup = &mut self.setups[index];
        match register {
            register::VIRTIO_MMIO_QUEUE_NUM => setup.size = value,
            register::VIRTIO_MMIO_QUEUE_DESC_LOW => set_half(&mut setup.descriptors, 0, value),
            register::VIRTIO_MMIO_QUEUE_DESC_HIGH => set_half(&mut setup.descriptors, 1, value),
            register::VIRTIO_MMIO_QUEUE_AVAIL_LOW => set_half(&mut setup.available, 0, value),
            register::VIRTIO_MMIO_QUEUE_AVAIL_HIGH => set_half(&mut setup.available, 1, value),
            register::VIRTIO_MMIO_QUEUE_USED_LOW => set_half(&mut setup.used, 0, value),
            register::VIRTIO_MMIO_QUEUE_USED_HIGH => set_half(&mut setup.used, 1, value),
            _ => {}
        }
    }

    fn offered(&self) -> u64 {
        self.device.features() | 1 << VIRTIO_F_VERSION_1
    }

    /// The driver chose nothing that was not offered, and all that is needed.
    fn acceptable(&self) -> bool {
        let needed = 1 << VIRTIO_F_VERSION_1;
        let features = self.driver_features;
        features & !self.offered() == 0 && features & needed != 0 && self.device.accepts(features)
    }

    fn selected(&self) -> Option<usize> {
        usize::try_from(self.queue_select).ok().filter(|index| *index < self.queues.len())
    }
}

/// The register at `offset`, if that is where one begins.
fn aligned(offset: u64) -> Option<u32> {
    u32::try_from(offset).ok().filter(|offset| offset.is_multiple_of(4))
}

/// Bits 0 to 31 (`select` = 0) or 32 to 63 (1) of `value`; what is beyond is zero.
#[expect(clippy::cast_possible_truncation, reason = "one half is meant")]
fn half(value: u64, select: u32) -> u32 {
    match select {
        0 => value as u32,
        1 => (value >> 32) as u32,
        _ => 0,
    }
}

/// Replaces the half of `value` that [`half`] would return.
fn set_half(value: &mut u64, select: u32, bits: u32) {
    match select {
        0 => *value = *value & !0xffff_ffff | u64::from(bits),
        1 => *value = *value & 0xffff_ffff | u64::from(bits) << 32,
        _ => {}
    }
}
