//! The weir guest ABI: everything that host and guest must agree on, and nothing else.
//!
//! A guest image is a static ELF64 executable whose `PT_NOTE` carries [`note`]. The VMM maps it at its own
//! addresses (identity mapping: virtual = physical), puts a [`BootInfo`] page in front of it and enters it at
//! CPL 3 with `rdi` = [`layout::BOOT_INFO`], `rsp` = top of a guarded stack (16-byte aligned, minus 8) and the
//! `%gs` base at a [`TrapArea`]. From then on the guest speaks to the VMM only through the [`control`] page and
//! its virtio-mmio devices.
//!
//! All values are little-endian; all structures are `repr(C)` without implicit padding.
#![no_std]
#![forbid(unsafe_code)]

pub mod boot;
pub mod control;
pub mod layout;
pub mod note;
pub mod trap;

pub use boot::BootInfo;
pub use trap::TrapArea;

/// Version of this contract. The VMM refuses an image that was built for another.
pub const ABI_VERSION: u32 = 2;
