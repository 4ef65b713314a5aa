//! What went through a network device, and what did not and why.

use super::filter::Rejection;

/// Counts since the device was made. Directions are the guest's; bytes are those of Ethernet frames. A frame that is
/// several TCP segments in one counts as one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetCounters {
    /// Frames sent.
    pub tx_frames: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Frames received.
    pub rx_frames: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Not sent: longer than the MTU allows, or too short for an IPv4 packet.
    pub tx_dropped_length: u64,
    /// Not sent: neither IPv4 nor well-formed.
    pub tx_dropped_protocol: u64,
    /// Not sent: from an address that is not the guest's.
    pub tx_dropped_source: u64,
    /// Not sent: to another than the other end of the link.
    pub tx_dropped_destination: u64,
    /// Not sent: with a virtio header that asks for what was not agreed on, or that does not fit the frame.
    pub tx_dropped_offload: u64,
    /// Not sent: the host refused it.
    pub tx_dropped_host: u64,
    /// Not received: longer than the MTU allows, or than the guest's buffer.
    pub rx_dropped_length: u64,
    /// Not received: not IPv4, or not for this guest.
    pub rx_dropped_foreign: u64,
    /// Not received: with work left to do that the driver did not agree to.
    pub rx_dropped_offload: u64,
}

impl NetCounters {
    pub(super) fn sent(&mut self, bytes: usize) {
        self.tx_frames += 1;
        self.tx_bytes += bytes as u64;
    }

    pub(super) fn received(&mut self, bytes: usize) {
        self.rx_frames += 1;
        self.rx_bytes += bytes as u64;
    }

    pub(super) fn drop_sent(&mut self, reason: Rejection) {
        *match reason {
            Rejection::Length => &mut self.tx_dropped_length,
            Rejection::Protocol => &mut self.tx_dropped_protocol,
            Rejection::Source => &mut self.tx_dropped_source,
            Rejection::Destination => &mut self.tx_dropped_destination,
            Rejection::Offload => &mut self.tx_dropped_offload,
        } += 1;
    }

    /// All frames that the guest sent in vain.
    pub fn tx_dropped(&self) -> u64 {
        self.tx_dropped_length
            + self.tx_dropped_protocol
            + self.tx_dropped_source
            + self.tx_dropped_destination
            + self.tx_dropped_offload
            + self.tx_dropped_host
    }

    /// All frames that were meant for the guest in vain.
    pub fn rx_dropped(&self) -> u64 {
        self.rx_dropped_length + self.rx_dropped_foreign + self.rx_dropped_offload
    }
}
