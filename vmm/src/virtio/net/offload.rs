//! Which work on frames is left to the other side, and what a guest may ask of the host's kernel.
//!
//! Offered are checksums, TCP segmentation for IPv4, and mergeable buffers. Not offered: IPv6, which the link does not
//! carry; UDP segmentation and ECN, for which no traffic with weir has a use, while each is a path into the host's
//! kernel that a hostile guest could take.
//!
//! The header that a guest puts before a frame is a request to the host's kernel, so none is passed on as it is. It is
//! checked against the headers of the frame, which are already copied out of the guest's reach, down to where exactly
//! the checksum goes; the kernel gets a new one with the values that were checked.

use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_CSUM, VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_HOST_TSO4,
    VIRTIO_NET_F_MRG_RXBUF, VIRTIO_NET_HDR_F_DATA_VALID, VIRTIO_NET_HDR_GSO_NONE, VIRTIO_NET_HDR_GSO_TCPV4,
};

use super::filter::{ETHERNET_HEADER, Rejection};
use super::header::{Header, NEEDS_CHECKSUM};

const WHOLE: u8 = VIRTIO_NET_HDR_GSO_NONE.to_le_bytes()[0];
const TCP4: u8 = VIRTIO_NET_HDR_GSO_TCPV4.to_le_bytes()[0];
/// Flag: the checksum was found right.
const CHECKED: u8 = VIRTIO_NET_HDR_F_DATA_VALID.to_le_bytes()[0];

/// Longest frame that stands for several segments: an IPv4 packet cannot be longer, bytes.
pub(super) const LONGEST_SEGMENTED: usize = ETHERNET_HEADER + u16::MAX as usize;
/// Longest frame that a driver with such frames must have room for (65562 bytes with the virtio header).
pub(super) const LONGEST_RECEIVED: usize = LONGEST_SEGMENTED + 1;
/// Longest IPv4 and TCP header, bytes: so much of a frame is needed to check its header.
pub(super) const LONGEST_HEADERS: usize = 60 + 60;
/// Least data of one segment, bytes; Linux's TCP accepts no smaller maximum segment size (`TCP_MIN_MSS`). It bounds
/// how many packets one frame can become.
const SMALLEST_SEGMENT: u16 = 48;

const TCP: u8 = 6;
const UDP: u8 = 17;

/// Work that the sender of a frame may leave undone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offloads {
    /// The checksum of TCP or UDP is not computed.
    pub checksum: bool,
    /// A TCP segment in IPv4 may be longer than the MTU; needs `checksum`.
    pub tcp4: bool,
}

impl Offloads {
    /// Every frame is as it could go over a wire.
    pub const NONE: Self = Self { checksum: false, tcp4: false };
}

/// What driver and device agreed on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Agreed {
    /// For frames from the guest.
    pub(super) send: Offloads,
    /// For frames to the guest.
    pub(super) receive: Offloads,
    /// A received frame may lie in several chains.
    pub(super) mergeable: bool,
}

impl Agreed {
    /// Every feature bit that this is about; but for mergeable buffers they need a TAP.
    pub(super) const OFFLOADS: u64 = 1 << VIRTIO_NET_F_CSUM
        | 1 << VIRTIO_NET_F_HOST_TSO4
        | 1 << VIRTIO_NET_F_GUEST_CSUM
        | 1 << VIRTIO_NET_F_GUEST_TSO4;
    pub(super) const MERGEABLE: u64 = 1 << VIRTIO_NET_F_MRG_RXBUF;

    /// What `features` say.
    pub(super) fn on(features: u64) -> Self {
        let has = |bit: u32| features & 1 << bit != 0;
        Self {
            send: Offloads { checksum: has(VIRTIO_NET_F_CSUM), tcp4: has(VIRTIO_NET_F_HOST_TSO4) },
            receive: Offloads { checksum: has(VIRTIO_NET_F_GUEST_CSUM), tcp4: has(VIRTIO_NET_F_GUEST_TSO4) },
            mergeable: has(VIRTIO_NET_F_MRG_RXBUF),
        }
    }

    /// No feature without the one that it requires (virtio 1.2, section 5.1.3.1).
    pub(super) fn consistent(self) -> bool {
        [self.send, self.receive].iter().all(|offloads| offloads.checksum || !offloads.tcp4)
    }
}

/// Whether a frame with this header claims to be several segments in one.
pub(super) fn is_segmented(header: &Header) -> bool {
    header.segmentation != WHOLE
}

/// As how many packets a checked frame of `length` bytes counts.
pub(super) fn packets(header: &Header, length: usize) -> usize {
    if !is_segmented(header) || header.segment == 0 {
        return 1;
    }
    let data = length.saturating_sub(header.headers.into());
    data.div_ceil(header.segment.into()).max(1)
}

/// What the host's kernel may be told about a frame of the guest's, that has passed the filter; `frame` is its
/// beginning, `length` its whole length. Flags that nobody knows are ignored, as the specification demands.
///
/// # Errors
/// [`Rejection::Offload`] if the guest asks for what was not agreed on, or for what makes no sense with this frame.
pub(super) fn check_sent(
    asked: &Header,
    frame: &[u8],
    length: usize,
    agreed: Offloads,
    mtu: u16,
) -> Result<Header, Rejection> {
    if asked.flags & NEEDS_CHECKSUM == 0 {
        return if is_segmented(asked) { Err(Rejection::Offload) } else { Ok(Header::default()) };
    }
    let checked = agreed.checksum.then(|| checksum(asked, frame, length)).flatten();
    let checked = match asked.segmentation {
        WHOLE => checked,
        TCP4 if agreed.tcp4 => checked.and_then(|header| segmentation(asked, header, frame, length, mtu)),
        _ => None,
    };
    checked.ok_or(Rejection::Offload)
}

/// The checksum of exactly the TCP or UDP header that there is.
fn checksum(asked: &Header, frame: &[u8], length: usize) -> Option<Header> {
    let packet = frame.get(ETHERNET_HEADER..)?;
    let start = ETHERNET_HEADER + 4 * usize::from(packet.first()? & 0xf);
    let fragment = u16::from_be_bytes([*packet.get(6)?, *packet.get(7)?]) & 0x3fff != 0;
    let (offset, header) = match *packet.get(9)? {
        TCP => (16, 20),
        UDP => (6, 8),
        _ => return None,
    };
    let fits = start + header <= length;
    let meant = usize::from(asked.checksum_start) == start && asked.checksum_offset == offset;
    (fits && meant && !fragment).then_some(Header {
        flags: NEEDS_CHECKSUM,
        checksum_start: asked.checksum_start,
        checksum_offset: offset,
        ..Header::default()
    })
}

/// One IPv4 packet with a whole TCP header, that becomes packets within the MTU.
fn segmentation(asked: &Header, checked: Header, frame: &[u8], length: usize, mtu: u16) -> Option<Header> {
    let packet = frame.get(ETHERNET_HEADER..)?;
    let tcp = usize::from(checked.checksum_start);
    let words = frame.get(tcp + 12)? >> 4;
    let headers = tcp + 4 * usize::from(words);
    let total = u16::from_be_bytes([*packet.get(2)?, *packet.get(3)?]);
    let sound = packet.get(9)? == &TCP
        && words >= 5
        && headers <= length
        && usize::from(total) == length - ETHERNET_HEADER
        && asked.segment >= SMALLEST_SEGMENT
        && headers - ETHERNET_HEADER + usize::from(asked.segment) <= usize::from(mtu);
    let headers = u16::try_from(headers).ok()?;
    sound.then_some(Header { segmentation: TCP4, headers, segment: asked.segment, ..checked })
}

/// What the guest is told about a frame from the host, but for the number of buffers; `None` if the frame was made for
/// somebody who had agreed to more, such as the driver before the last reset.
pub(super) fn check_received(header: &Header, agreed: Offloads) -> Option<Header> {
    let unfinished = header.flags & NEEDS_CHECKSUM != 0;
    if unfinished && !agreed.checksum || is_segmented(header) && !(agreed.tcp4 && header.segmentation == TCP4)
    {
        return None;
    }
    if !agreed.checksum {
        return Some(Header::default());
    }
    Some(Header { flags: header.flags & (NEEDS_CHECKSUM | CHECKED), buffers: 0, ..*header })
}
