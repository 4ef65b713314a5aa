//! `struct virtio_net_hdr_v1`, which precedes every frame on the rings and on the TAP (virtio 1.2, section 5.1.6).

use virtio_bindings::virtio_net::{VIRTIO_NET_HDR_F_NEEDS_CSUM, virtio_net_hdr_v1};

/// Its size, bytes.
pub(super) const HEADER: usize = size_of::<virtio_net_hdr_v1>();
/// Flag: the checksum from `checksum_start` on is still to be computed.
pub(super) const NEEDS_CHECKSUM: u8 = VIRTIO_NET_HDR_F_NEEDS_CSUM.to_le_bytes()[0];

/// Its fields, offsets and sizes in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) flags: u8,
    /// Whether, and as what, the frame is to be cut into segments.
    pub(super) segmentation: u8,
    /// Length of all headers, which precede the data of each segment.
    pub(super) headers: u16,
    /// Most data of one segment.
    pub(super) segment: u16,
    /// From where on the checksum is to be computed.
    pub(super) checksum_start: u16,
    /// Where it goes, from `checksum_start` on.
    pub(super) checksum_offset: u16,
    /// In how many chains a received frame lies.
    pub(super) buffers: u16,
}

impl Header {
    pub(super) fn parse(bytes: &[u8; HEADER]) -> Self {
        let field = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        Self {
            flags: bytes[0],
            segmentation: bytes[1],
            headers: field(2),
            segment: field(4),
            checksum_start: field(6),
            checksum_offset: field(8),
            buffers: field(10),
        }
    }

    pub(super) fn bytes(self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[..2].copy_from_slice(&[self.flags, self.segmentation]);
        let fields = [self.headers, self.segment, self.checksum_start, self.checksum_offset, self.buffers];
        for (to, field) in bytes[2..].chunks_exact_mut(2).zip(fields) {
            to.copy_from_slice(&field.to_le_bytes());
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_header_is_read_as_it_is_written(bytes in any::<[u8; HEADER]>()) {
            prop_assert_eq!(Header::parse(&bytes).bytes(), bytes);
        }
    }
}
