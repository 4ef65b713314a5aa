//! Guest-physical (= guest-virtual) addresses fixed by the ABI.
//!
//! ```text
//! 0x0000_0000  unmapped: null pointers fault
//! 0x0001_0000  VMM's own: page tables, GDT, IDT, TSS, ring-0 gates (supervisor only)
//! 0x0008_0000  GATE_CODE   user r-x: LSTAR stub, exception trampolines
//! 0x0008_2000  TRAP_AREA   user rw-: TrapArea, %gs base
//! 0x0008_4000  FAULT_STACK user rw-: 16 KiB, a guard page on either side
//! 0x0009_0000  BOOT_INFO   user r--: BootInfo, then environment and arguments (64 KiB)
//! 0x0020_0000  IMAGE_MIN   the image's segments; behind them guard, stack, guard, heap to the end of memory
//! 0xd000_0000  MMIO        control page, then one page per virtio-mmio device
//! ```

/// Everything below faults.
pub const NULL_GUARD_END: u64 = 0x1_0000;
/// First byte of the area that only ring 0 and the VMM may touch.
pub const SYSTEM: u64 = 0x1_0000;
/// End of [`SYSTEM`], exclusive.
pub const SYSTEM_END: u64 = 0x8_0000;
/// User-executable page(s) with the `syscall` stub and the exception trampolines, written by the VMM.
pub const GATE_CODE: u64 = 0x8_0000;
/// The [`crate::TrapArea`].
pub const TRAP_AREA: u64 = 0x8_2000;
/// Lowest byte of the stack on which faults are delivered.
pub const FAULT_STACK: u64 = 0x8_4000;
/// Size of the fault stack.
pub const FAULT_STACK_SIZE: u64 = 0x4000;
/// The [`crate::BootInfo`].
pub const BOOT_INFO: u64 = 0x9_0000;
/// Size of the region that holds [`crate::BootInfo`] and its strings.
pub const BOOT_INFO_SIZE: u64 = 0x1_0000;
/// Lowest address at which an image may have a segment.
pub const IMAGE_MIN: u64 = 0x20_0000;
/// Size of the initial stack.
pub const STACK_SIZE: u64 = 0x4_0000;
/// The control page (see [`crate::control`]).
pub const CONTROL: u64 = 0xd000_0000;
/// The network device's virtio-mmio page: version 2, device type 1, offering `VIRTIO_F_VERSION_1` and queues of at least
/// 64 descriptors. A reset also clears the accepted features and all queue addresses, so a driver that knows this ABI
/// need neither read any of that nor write a zero. Nor need it read the offered features: it may accept what it can use
/// (checksum, segmentation, mergeable buffers) and look at `FEATURES_OK`; if that is not set, it resets the device and
/// accepts `VIRTIO_F_VERSION_1` alone.
pub const VIRTIO_NET: u64 = 0xd000_1000;
/// End of the MMIO window, exclusive. No guest memory may reach [`CONTROL`].
pub const MMIO_END: u64 = 0xd001_0000;
