//! What a VM is made from. Travels from weir to the launcher, and from there into the VM's process.

use std::fmt;
use std::net::Ipv4Addr;
use std::num::NonZeroU64;

use serde::{Deserialize, Serialize};

/// Identity of one VM, never used twice in one run of weir: it names the incarnation, not the slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct VmId(pub u64);

impl fmt::Display for VmId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Everything about a VM but its file descriptors.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmSpec {
    /// Its identity.
    pub id: VmId,
    /// The pool it belongs to, for messages.
    pub pool: String,
    /// Guest memory, bytes; a multiple of the page size.
    pub memory: u64,
    /// Virtual CPUs.
    pub vcpus: u32,
    /// Its end of the TAP link; `None`: no network device.
    pub net: Option<NetSpec>,
    /// Environment.
    pub env: Vec<(String, String)>,
    /// Arguments.
    pub args: Vec<String>,
    /// Log lines per second that are passed on; more are dropped and counted.
    pub log_lines: u32,
}

/// One end of a TAP link, as the guest sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetSpec {
    /// Guest's MAC address.
    pub mac: [u8; 6],
    /// Guest's address.
    pub address: Ipv4Addr,
    /// Prefix length of the link.
    pub prefix: u8,
    /// The host's end.
    pub gateway: Ipv4Addr,
    /// The host's MAC address.
    pub gateway_mac: [u8; 6],
    /// Largest IP packet, bytes.
    pub mtu: u16,
    /// How much may pass.
    pub limits: NetLimits,
}

/// How much may pass over a link. What is too much waits: in the guest's ring, or in the TAP. The default has no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetLimits {
    /// From the guest.
    pub send: Rate,
    /// To the guest.
    pub receive: Rate,
}

impl NetLimits {
    /// No limit.
    pub const NONE: Self = {
        let rate = Rate { bytes_per_second: None, packets_per_second: None };
        Self { send: rate, receive: rate }
    };
}

/// A limit on one direction, kept in the long run; for a tenth of a second, or one frame of 64 KiB, it may be exceeded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rate {
    /// Bytes of Ethernet frames; `None`: unlimited.
    pub bytes_per_second: Option<NonZeroU64>,
    /// Packets; a frame that is several TCP segments in one counts as all of them. `None`: unlimited.
    pub packets_per_second: Option<NonZeroU64>,
}
