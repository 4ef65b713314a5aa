//! Which frames may pass: on a point-to-point link only IPv4 between its two ends.
//!
//! The host's side trusts nothing either (no forwarding in weir's network namespace), but a frame with a borrowed
//! address should not even get that far: a VM must not speak in another's name, nor to another VM.

use crate::spec::NetSpec;

/// Length of an Ethernet header without VLAN tag.
pub const ETHERNET_HEADER: usize = 14;
/// Length of an IPv4 header without options.
pub const IPV4_HEADER: usize = 20;
const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];

/// Why a frame of the guest's is not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// Longer than the MTU allows, or too short for an IPv4 packet.
    Length,
    /// Not IPv4, or not well-formed.
    Protocol,
    /// From an address that is not the guest's.
    Source,
    /// To another than the other end of the link.
    Destination,
    /// Asks for work on it that was not agreed on, or that makes no sense.
    Offload,
}

/// The two ends of the link.
#[derive(Clone, Copy, Debug)]
pub struct Filter {
    spec: NetSpec,
}

impl Filter {
    /// Lets pass what belongs on the link of `spec`.
    pub fn new(spec: &NetSpec) -> Self {
        Self { spec: *spec }
    }

    /// Largest IP packet on the link, bytes.
    pub fn mtu(&self) -> u16 {
        self.spec.mtu
    }

    /// Longest frame on the link in either direction, bytes.
    pub fn longest_frame(&self) -> usize {
        ETHERNET_HEADER + usize::from(self.spec.mtu)
    }

    /// Checks a frame of the guest's: `head` is its beginning (at least Ethernet and IPv4 header), `length` its whole
    /// length, which may be up to `longest`. A frame that is yet to be cut into segments is checked as a whole: each
    /// gets its addresses from it.
    ///
    /// # Errors
    /// Why it must not be sent.
    pub fn check_sent(&self, head: &[u8], length: usize, longest: usize) -> Result<(), Rejection> {
        if length < ETHERNET_HEADER + IPV4_HEADER || length > longest {
            return Err(Rejection::Length);
        }
        let Some((ethernet, packet)) = head.split_first_chunk::<ETHERNET_HEADER>() else {
            return Err(Rejection::Length);
        };
        let Some(packet) = packet.first_chunk::<IPV4_HEADER>() else { return Err(Rejection::Length) };
        let (version, header_words) = (packet[0] >> 4, packet[0] & 0xf);
        if ethernet[12..14] != ETHERTYPE_IPV4 || version != 4 || header_words < 5 {
            return Err(Rejection::Protocol);
        }
        if ethernet[6..12] != self.spec.mac || packet[12..16] != self.spec.address.octets() {
            return Err(Rejection::Source);
        }
        if ethernet[..6] != self.spec.gateway_mac || packet[16..20] != self.spec.gateway.octets() {
            return Err(Rejection::Destination);
        }
        Ok(())
    }

    /// Whether a frame from the host, that begins with `ethernet`, is one for the guest: not the kernel's own
    /// chatter (IPv6 router solicitation and the like), nor what was meant for the TAP's former user.
    pub fn is_for_guest(&self, ethernet: &[u8]) -> bool {
        ethernet.starts_with(&self.spec.mac) && ethernet[12..].starts_with(&ETHERTYPE_IPV4)
    }
}
