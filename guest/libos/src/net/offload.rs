//! What device and driver tell each other about a frame (struct virtio_net_hdr_v1; virtio 1.2, 5.1.6), and the
//! checksums that this is about.
//!
//! The link is a function call between two kernels on one machine: a checksum guards against nothing there, and a TCP
//! segment need not fit an MTU that only real wires have.

use core::num::NonZeroU16;

use smoltcp::wire::{IpAddress, IpProtocol, Ipv4Packet, TcpPacket};

use super::ethernet::HEADER as ETHERNET_HEADER;

/// Length of the encoded header, bytes.
pub(crate) const HEADER: usize = 12;
const NEEDS_CSUM: u8 = 1;
const DATA_VALID: u8 = 2;
const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
/// Offset of the checksum in a TCP header (RFC 9293, 3.1).
const TCP_CHECKSUM: u16 = 16;

/// Feature bits (virtio 1.2, 5.1.3 and 6).
pub(crate) mod feature {
    /// The device completes checksums of frames sent.
    pub(crate) const CSUM: u64 = 1 << 0;
    /// The driver takes frames whose checksum is not complete.
    pub(crate) const GUEST_CSUM: u64 = 1 << 1;
    /// The driver takes TCP segments larger than the MTU.
    pub(crate) const GUEST_TSO4: u64 = 1 << 7;
    /// The device takes TCP segments larger than the MTU.
    pub(crate) const HOST_TSO4: u64 = 1 << 11;
    /// A frame received may span several buffers.
    pub(crate) const MRG_RXBUF: u64 = 1 << 15;
    /// Neither side is older than virtio 1.0.
    pub(crate) const VERSION_1: u64 = 1 << 32;
    /// All that this driver can use.
    pub(crate) const ALL: u64 = CSUM | GUEST_CSUM | GUEST_TSO4 | HOST_TSO4 | MRG_RXBUF | VERSION_1;
}

/// The header in front of each frame. The default says: one whole frame, nothing offloaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Header {
    flags: u8,
    gso_type: u8,
    header_length: u16,
    gso_size: u16,
    checksum_start: u16,
    checksum_offset: u16,
    /// Buffers that a received frame spans.
    pub(crate) buffers: u16,
}

impl Header {
    /// Whether the other side vouches for the checksum of a frame received.
    pub(crate) fn vouches(self) -> bool {
        self.flags & (NEEDS_CSUM | DATA_VALID) != 0
    }

    /// The header at the start of `bytes`; the default if there is none.
    pub(crate) fn decode(bytes: &[u8]) -> Self {
        let Some(bytes) = bytes.first_chunk::<HEADER>() else { return Self::default() };
        let word = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        Self {
            flags: bytes[0],
            gso_type: bytes[1],
            header_length: word(2),
            gso_size: word(4),
            checksum_start: word(6),
            checksum_offset: word(8),
            buffers: word(10),
        }
    }

    /// As it stands in memory.
    pub(crate) fn encode(self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[0] = self.flags;
        bytes[1] = self.gso_type;
        let words =
            [self.header_length, self.gso_size, self.checksum_start, self.checksum_offset, self.buffers];
        for (at, word) in words.into_iter().enumerate() {
            bytes[2 + 2 * at..4 + 2 * at].copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }
}

/// Leaves the checksum of a TCP segment in `frame` to the device, and if `segment` is given, its division into parts
/// that carry so many bytes each. Frames that are no TCP stay as they are.
pub(crate) fn prepare(frame: &mut [u8], segment: Option<NonZeroU16>) -> Header {
    let Some(packet) = frame.get_mut(ETHERNET_HEADER..) else { return Header::default() };
    let Ok(mut ip) = Ipv4Packet::new_checked(packet) else { return Header::default() };
    if ip.next_header() != IpProtocol::Tcp {
        return Header::default();
    }
    let (source, destination) = (ip.src_addr().octets(), ip.dst_addr().octets());
    let start = ETHERNET_HEADER + usize::from(ip.header_len());
    let Ok(mut tcp) = TcpPacket::new_checked(ip.payload_mut()) else { return Header::default() };
    let header_length = start + usize::from(tcp.header_len());
    let length = tcp.payload_mut().len() + usize::from(tcp.header_len());
    tcp.set_checksum(pseudo_header_sum(source, destination, length));
    let short = |value: usize| u16::try_from(value).unwrap_or(u16::MAX);
    Header {
        flags: NEEDS_CSUM,
        gso_type: if segment.is_some() { GSO_TCPV4 } else { GSO_NONE },
        header_length: if segment.is_some() { short(header_length) } else { 0 },
        gso_size: segment.map_or(0, NonZeroU16::get),
        checksum_start: short(start),
        checksum_offset: TCP_CHECKSUM,
        buffers: 0,
    }
}

/// Whether the checksum in an IPv4 `packet` that nobody vouches for is right. Of TCP only: the stack looks after
/// others, and after what is no TCP segment at all.
pub(crate) fn is_intact(packet: &[u8]) -> bool {
    let Ok(ip) = Ipv4Packet::new_checked(packet) else { return true };
    if ip.next_header() != IpProtocol::Tcp {
        return true;
    }
    let (source, destination) = (IpAddress::Ipv4(ip.src_addr()), IpAddress::Ipv4(ip.dst_addr()));
    TcpPacket::new_checked(ip.payload()).map_or(true, |tcp| tcp.verify_checksum(&source, &destination))
}

/// The sum of the pseudo-header of a TCP segment of `length` bytes (RFC 9293, 3.1), not complemented.
fn pseudo_header_sum(source: [u8; 4], destination: [u8; 4], length: usize) -> u16 {
    let word = |high: u8, low: u8| u32::from(high) << 8 | u32::from(low);
    let [a, b, c, d] = source;
    let [e, f, g, h] = destination;
    let length = u32::try_from(length & 0xffff).unwrap_or(0);
    let sum =
        word(a, b) + word(c, d) + word(e, f) + word(g, h) + u32::from(u8::from(IpProtocol::Tcp)) + length;
    let folded = (sum & 0xffff) + (sum >> 16);
    u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap_or(u16::MAX)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What a device does with a frame that was sent: one frame per segment, each with its checksum.
    pub(crate) fn complete(header: Header, frame: &[u8]) -> Vec<Vec<u8>> {
        let start = usize::from(header.checksum_start);
        if header.flags & NEEDS_CSUM == 0 {
            assert_eq!(header, Header::default());
            return vec![frame.to_vec()];
        }
        let headers = start + usize::from(frame[start + 12] >> 4) * 4;
        let (head, payload) = frame.split_at(headers);
        let size = match header.gso_type {
            GSO_TCPV4 => usize::from(header.gso_size),
            _ => payload.len().max(1),
        };
        assert!(header.gso_type == GSO_NONE || usize::from(header.header_length) == headers);
        let parts: Vec<&[u8]> =
            if payload.is_empty() { vec![payload] } else { payload.chunks(size).collect() };
        let last = parts.len() - 1;
        let segment = |(at, part): (usize, &&[u8])| {
            let mut segment = [head, part].concat();
            let (ip, tcp) = segment.split_at_mut(start);
            let total = u16::try_from(20 + tcp.len()).unwrap();
            ip[16..18].copy_from_slice(&total.to_be_bytes());
            ip[24..26].fill(0);
            let sum = sum16(&ip[14..]);
            ip[24..26].copy_from_slice(&(!sum).to_be_bytes());
            let sequence = u32::from_be_bytes(tcp[4..8].try_into().unwrap());
            let offset = u32::try_from(at * size).unwrap();
            tcp[4..8].copy_from_slice(&sequence.wrapping_add(offset).to_be_bytes());
            if at < last {
                // FIN and PSH belong to the last one.
                tcp[13] &= !0b1001;
            }
            let offset = usize::from(header.checksum_offset);
            if parts.len() > 1 {
                let sum = pseudo_header_sum(
                    ip[26..30].try_into().unwrap(),
                    ip[30..34].try_into().unwrap(),
                    tcp.len(),
                );
                tcp[offset..offset + 2].copy_from_slice(&sum.to_be_bytes());
            }
            let sum = sum16(tcp);
            tcp[offset..offset + 2].copy_from_slice(&(!sum).to_be_bytes());
            segment
        };
        parts.iter().enumerate().map(segment).collect()
    }

    fn sum16(bytes: &[u8]) -> u16 {
        let pair = |pair: &[u8]| u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0));
        let mut sum: u64 = bytes.chunks(2).map(pair).sum();
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        u16::try_from(sum).unwrap()
    }

    /// A TCP segment with `payload`, its checksum not filled in.
    fn frame(payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![0; 54];
        frame[14..24].copy_from_slice(&[0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 6]);
        let total = u16::try_from(40 + payload.len()).unwrap();
        frame[16..18].copy_from_slice(&total.to_be_bytes());
        frame[26..34].copy_from_slice(&[10, 88, 0, 1, 10, 88, 0, 0]);
        frame[34..54]
            .copy_from_slice(&[0, 80, 200, 1, 0, 0, 0, 9, 0, 0, 0, 7, 0x50, 0x18, 255, 255, 0, 0, 0, 0]);
        frame.extend_from_slice(payload);
        frame
    }

    proptest! {
        #[test]
        fn a_completed_segment_is_intact(payload in proptest::collection::vec(any::<u8>(), 0..5000), size in 500u16..1500) {
            let segment = NonZeroU16::new(size).filter(|_| payload.len() > usize::from(size));
            let mut whole = frame(&payload);
            let header = prepare(&mut whole, segment);
            let header = Header::decode(&header.encode());
            let mut received = Vec::new();
            for (at, part) in complete(header, &whole).into_iter().enumerate() {
                prop_assert!(is_intact(&part[14..]), "segment {}", at);
                prop_assert!(segment.is_none() || part.len() <= 54 + usize::from(size));
                let mut damaged = part.clone();
                damaged[53] ^= 1;
                prop_assert!(!is_intact(&damaged[14..]));
                received.extend_from_slice(&part[54..]);
            }
            prop_assert_eq!(received, payload);
        }

        #[test]
        fn any_bytes_are_safe(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let mut frame = bytes;
            is_intact(&frame);
            prepare(&mut frame, None);
            let _ = Header::decode(&frame);
        }
    }

    #[test]
    fn other_protocols_are_left_alone() {
        let mut udp = frame(b"hello");
        udp[23] = 17;
        let before = udp.clone();
        assert_eq!(prepare(&mut udp, None), Header::default());
        assert_eq!(udp, before);
    }
}
