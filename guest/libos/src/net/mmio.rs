//! The virtio-mmio register page (virtio 1.2, 4.2.2), for the `virtio-drivers` crate.
//!
//! The crate brings a transport of its own, which stores by `write_volatile`; but the VMM can emulate a plain `mov`
//! only, so each access is spelled out here. Each access also is an exit of about 30 us, all of them on the way to
//! READY: this transport neither reads what [`VIRTIO_NET`] promises nor writes zeros into what a reset has cleared.

use core::arch::asm;

use virtio_drivers::transport::{DeviceStatus, DeviceType, InterruptStatus, Transport};
use virtio_drivers::{Error, PhysAddr, Result};
use weir_abi::layout::VIRTIO_NET;
use zerocopy::{FromBytes, Immutable, IntoBytes};

const DEVICE_FEATURES: u64 = 0x010;
const DEVICE_FEATURES_SEL: u64 = 0x014;
const DRIVER_FEATURES: u64 = 0x020;
const DRIVER_FEATURES_SEL: u64 = 0x024;
const QUEUE_SEL: u64 = 0x030;
const QUEUE_NUM: u64 = 0x038;
const QUEUE_READY: u64 = 0x044;
const QUEUE_NOTIFY: u64 = 0x050;
const INTERRUPT_STATUS: u64 = 0x060;
const INTERRUPT_ACK: u64 = 0x064;
const STATUS: u64 = 0x070;
const QUEUE_DESC: u64 = 0x080;
const QUEUE_DRIVER: u64 = 0x090;
const QUEUE_DEVICE: u64 = 0x0a0;
const CONFIG_GENERATION: u64 = 0x0fc;
const CONFIG: u64 = 0x100;

/// Descriptors that every queue has room for, by the ABI.
const QUEUE_SIZE_MIN: u32 = 64;

/// One device's register page.
pub(crate) struct Mmio {
    base: u64,
    /// The queue that QUEUE_SEL stands at.
    selected: Option<u16>,
}

impl Mmio {
    /// The network device at `base`; `None`: there is none.
    pub(crate) fn network(base: u64) -> Option<Self> {
        (base == VIRTIO_NET).then_some(Self { base, selected: None })
    }

    fn read(&self, register: u64) -> u32 {
        let value: u32;
        // SAFETY: `base` is the page that boot-info names; registers have no effect on memory.
        unsafe {
            asm!("mov {:e}, [{}]", out(reg) value, in(reg) self.base + register, options(nostack, preserves_flags))
        };
        value
    }

    fn write(&mut self, register: u64, value: u32) {
        // SAFETY: as above; and the device may read rings and buffers now, so the compiler must assume that this
        // reads and writes memory.
        unsafe {
            asm!("mov [{}], {:e}", in(reg) self.base + register, in(reg) value, options(nostack, preserves_flags))
        };
    }

    fn select(&mut self, queue: u16) {
        if self.selected != Some(queue) {
            self.write(QUEUE_SEL, queue.into());
            self.selected = Some(queue);
        }
    }

    fn write_address(&mut self, register: u64, address: PhysAddr) {
        let [low, high] =
            [address & 0xffff_ffff, address >> 32].map(|half| u32::try_from(half).unwrap_or(u32::MAX));
        self.write(register, low);
        if high != 0 {
            self.write(register + 4, high);
        }
    }
}

impl Transport for Mmio {
    fn device_type(&self) -> DeviceType {
        DeviceType::Network
    }

    fn read_device_features(&mut self) -> u64 {
        self.write(DEVICE_FEATURES_SEL, 1);
        let high = self.read(DEVICE_FEATURES);
        self.write(DEVICE_FEATURES_SEL, 0);
        u64::from(high) << 32 | u64::from(self.read(DEVICE_FEATURES))
    }

    fn write_driver_features(&mut self, features: u64) {
        let words = [(1, features >> 32), (0, features & 0xffff_ffff)];
        for (word, value) in words.into_iter().filter(|(_, value)| *value != 0) {
            self.write(DRIVER_FEATURES_SEL, word);
            self.write(DRIVER_FEATURES, u32::try_from(value).unwrap_or(u32::MAX));
        }
    }

    fn max_queue_size(&mut self, _queue: u16) -> u32 {
        QUEUE_SIZE_MIN
    }

    fn notify(&mut self, queue: u16) {
        self.write(QUEUE_NOTIFY, queue.into());
    }

    fn get_status(&self) -> DeviceStatus {
        DeviceStatus::from_bits_retain(self.read(STATUS))
    }

    fn set_status(&mut self, status: DeviceStatus) {
        self.write(STATUS, status.bits());
    }

    fn set_guest_page_size(&mut self, _size: u32) {
        // Legacy devices only.
    }

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
        self.select(queue);
        self.write(QUEUE_NUM, size);
        self.write_address(QUEUE_DESC, descriptors);
        self.write_address(QUEUE_DRIVER, driver);
        self.write_address(QUEUE_DEVICE, device);
        self.write(QUEUE_READY, 1);
    }

    fn queue_unset(&mut self, queue: u16) {
        self.select(queue);
        self.write(QUEUE_READY, 0);
    }

    fn queue_used(&mut self, _queue: u16) -> bool {
        // The driver has just reset the device.
        false
    }

    fn ack_interrupt(&mut self) -> InterruptStatus {
        let status = self.read(INTERRUPT_STATUS);
        self.write(INTERRUPT_ACK, status);
        InterruptStatus::from_bits_retain(status)
    }

    fn read_config_generation(&self) -> u32 {
        self.read(CONFIG_GENERATION)
    }

    fn read_config_space<T: FromBytes + IntoBytes>(&self, offset: usize) -> Result<T> {
        let mut value = T::new_zeroed();
        for (at, byte) in value.as_mut_bytes().iter_mut().enumerate() {
            let address = self.base + CONFIG + (offset + at) as u64;
            // SAFETY: the configuration space is part of the device's page; reading it has no effect on memory.
            unsafe {
                asm!("mov {}, [{}]", out(reg_byte) *byte, in(reg) address, options(nostack, preserves_flags))
            };
        }
        Ok(value)
    }

    fn write_config_space<T: IntoBytes + Immutable>(&mut self, _offset: usize, _value: T) -> Result<()> {
        // A network device's configuration is read-only since virtio 1.0.
        Err(Error::Unsupported)
    }
}
