//! The boot-info page: what a guest is told about itself.
//!
//! # Generations
//!
//! ```text
//! boot: generation g ──> runs ──> PARK ──┬─ the same generation: goes on
//!                          ▲             └─ another one: this VM is now another, see below
//!                          └─────────────────┘
//! ```
//!
//! While a guest is in a PARK (any, also one of [`crate::control::PARK_YIELD`]), the VMM may freeze it, copy it, or take
//! it back to an earlier PARK, and let what comes of that continue as another VM. It says so by another
//! [`BootInfo::generation`]: any other value, not necessarily the next one. It never changes at another moment, so one
//! load after each PARK is all that a guest has to do.
//!
//! | on a change | |
//! |---|---|
//! | is another one | `vm_id`, `mac`, `gateway_mac`, `address`, `gateway`, `prefix`, `mtu`, `entropy`, `tsc_hz`, `tsc_base`, `unix_nanos` |
//! | stays | `vcpus`, `heap`, `stack`, `virtio_net`, environment and arguments, everything else in memory |
//! | is gone | every connection: the peers belong to another VM, and nothing may be sent to them |
//!
//! - `tsc_base` and `unix_nanos` belong to the moment at which the guest continues, as nearly as the VMM can tell. How
//!   long the guest was frozen cannot be told; the counter may stand below where it stood before (a snapshot restored
//!   after a restart of the host), and `tsc_hz` may differ.
//! - The virtqueues are as they stood at the PARK: the same rings and indices, the same accepted features. The VMM
//!   freezes a guest before it delivers anything in that PARK, and what the old VM had coming is dropped: whatever is
//!   delivered from then on is for the new VM. What the guest had queued to be sent with the PARK may or may not have
//!   been sent, and may or may not be on the used ring.
//! - Deadlines of that PARK are void: the guest is entered at once and parks again with what is left of them.

/// First eight bytes of [`BootInfo`].
pub const MAGIC: u64 = u64::from_le_bytes(*b"weirboot");

/// Half-open range of guest memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Region {
    /// First byte.
    pub start: u64,
    /// One past the last byte.
    pub end: u64,
}

/// Lives at [`crate::layout::BOOT_INFO`], read-only for the guest. The VMM writes it before the first entry, and
/// again (with a higher [`Self::generation`]) before a clone continues.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct BootInfo {
    /// [`MAGIC`].
    pub magic: u64,
    /// [`crate::ABI_VERSION`] of the VMM.
    pub version: u32,
    /// Number of virtual CPUs.
    pub vcpus: u32,
    /// Changes whenever this VM became another; see [the module](self#generations) for what follows from it.
    pub generation: u64,
    /// Unique among all VMs of this run of weir; a VM that goes back to its snapshot keeps it.
    pub vm_id: u64,
    /// Free memory, zeroed by the VMM before the first entry; starts and ends page-aligned.
    pub heap: Region,
    /// The initial stack.
    pub stack: Region,
    /// Frequency of the time-stamp counter, Hz.
    pub tsc_hz: u64,
    /// Time-stamp counter at [`Self::unix_nanos`].
    pub tsc_base: u64,
    /// Wall clock at [`Self::tsc_base`], nanoseconds since 1970.
    pub unix_nanos: u64,
    /// Seed for the guest's random numbers, never given twice.
    pub entropy: [u8; 64],
    /// Base of the network device's virtio-mmio page; zero: none.
    pub virtio_net: u64,
    /// The guest's MAC address.
    pub mac: [u8; 6],
    /// The other end's MAC address: the only neighbour on this point-to-point link.
    pub gateway_mac: [u8; 6],
    /// The guest's IPv4 address, network byte order.
    pub address: [u8; 4],
    /// The other end's IPv4 address.
    pub gateway: [u8; 4],
    /// Prefix length of the link (31).
    pub prefix: u8,
    /// Always zero.
    pub reserved: u8,
    /// Largest IP packet on the link, bytes.
    pub mtu: u16,
    /// Environment: this many NUL-terminated `NAME=value` strings, from `strings`.
    pub env_count: u32,
    /// Arguments: this many NUL-terminated strings, behind the environment.
    pub arg_count: u32,
    /// Offset of the strings from the start of this structure.
    pub strings: u32,
    /// Total length of the strings, bytes.
    pub strings_length: u32,
}

impl BootInfo {
    /// A boot-info with this ABI's magic and version, everything else zero.
    pub const fn new() -> Self {
        Self {
            magic: MAGIC,
            version: crate::ABI_VERSION,
            vcpus: 1,
            generation: 0,
            vm_id: 0,
            heap: Region { start: 0, end: 0 },
            stack: Region { start: 0, end: 0 },
            tsc_hz: 0,
            tsc_base: 0,
            unix_nanos: 0,
            entropy: [0; 64],
            virtio_net: 0,
            mac: [0; 6],
            gateway_mac: [0; 6],
            address: [0; 4],
            gateway: [0; 4],
            prefix: 0,
            reserved: 0,
            mtu: 0,
            env_count: 0,
            arg_count: 0,
            strings: 0,
            strings_length: 0,
        }
    }
}

impl Default for BootInfo {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::BootInfo;
    use core::mem::size_of;

    #[test]
    fn boot_info_has_no_padding_and_leaves_room_for_strings() {
        assert_eq!(size_of::<BootInfo>() % 8, 0);
        assert_eq!(size_of::<BootInfo>(), 16 + 16 + 32 + 24 + 64 + 8 + 12 + 8 + 4 + 16);
    }
}
