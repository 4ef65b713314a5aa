//! Ethernet frames as a guest writes and reads them, behind their virtio-net header.

use std::io::ErrorKind;
use std::net::Ipv4Addr;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use weir_net::address::Mac;
use weir_net::tap::TapLink;

/// Bytes of `struct virtio_net_hdr_v1`.
pub(crate) const HEADER: usize = 12;
/// How long something that must come may take, milliseconds; only a failing test takes that long.
pub(crate) const PATIENCE: u16 = 5000;

const ETHERNET: usize = 14;
const IPV4: usize = 20;
const UDP: usize = 8;

/// A UDP datagram between two addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Datagram {
    pub(crate) from: (Mac, Ipv4Addr, u16),
    pub(crate) to: (Mac, Ipv4Addr, u16),
    pub(crate) payload: Vec<u8>,
}

impl Datagram {
    /// A datagram from the guest of `tap` to `port` at `address`.
    pub(crate) fn from_guest(tap: &TapLink, address: Ipv4Addr, port: u16, payload: &str) -> Self {
        let link = tap.link();
        Self {
            from: (link.guest_mac, link.guest, 9),
            to: (link.host_mac, address, port),
            payload: payload.as_bytes().to_vec(),
        }
    }

    /// As written to a TAP.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let udp = u16::try_from(UDP + self.payload.len()).expect("a short payload");
        let total = udp + u16::try_from(IPV4).expect("small");
        let mut ip = vec![0x45, 0];
        ip.extend(total.to_be_bytes());
        ip.extend([0, 0, 0x40, 0, 64, 17, 0, 0]);
        ip.extend(self.from.1.octets());
        ip.extend(self.to.1.octets());
        let sum = !ones_complement_sum(&ip);
        ip[10..12].copy_from_slice(&sum.to_be_bytes());

        let mut frame = vec![0; HEADER];
        frame.extend(self.to.0);
        frame.extend(self.from.0);
        frame.extend([0x08, 0x00]);
        frame.extend(ip);
        frame.extend(self.from.2.to_be_bytes());
        frame.extend(self.to.2.to_be_bytes());
        frame.extend(udp.to_be_bytes());
        // Checksum zero: none.
        frame.extend([0, 0]);
        frame.extend(&self.payload);
        frame
    }

    /// As read from a TAP. Panics if it is anything else, has offloads left to do or a wrong checksum.
    pub(crate) fn decode(frame: &[u8]) -> Self {
        assert_eq!(&frame[..HEADER - 2], [0; HEADER - 2], "offloads in the virtio-net header");
        let frame = &frame[HEADER..];
        assert_eq!(&frame[12..ETHERNET], [0x08, 0x00], "not IPv4");
        let ip = &frame[ETHERNET..];
        assert_eq!((ip[0], ip[9]), (0x45, 17), "not UDP");
        assert_eq!(ones_complement_sum(&ip[..IPV4]), 0xffff, "IP header checksum");
        let udp = &ip[IPV4..];
        let pseudo = [&ip[12..20], &[0, 17], &udp[4..6], udp].concat();
        assert_eq!(ones_complement_sum(&pseudo), 0xffff, "UDP checksum");
        let mac = |at: usize| frame[at..at + 6].try_into().expect("six bytes");
        let address = |at: usize| Ipv4Addr::from(<[u8; 4]>::try_from(&ip[at..at + 4]).expect("four bytes"));
        let port = |at: usize| u16::from_be_bytes([udp[at], udp[at + 1]]);
        Self {
            from: (mac(6), address(12), port(0)),
            to: (mac(0), address(16), port(2)),
            payload: udp[UDP..].to_vec(),
        }
    }
}

/// RFC 1071, without the final complement.
fn ones_complement_sum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let sum: u32 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    u16::try_from((folded & 0xffff) + (folded >> 16)).expect("folded twice")
}

/// Writes `frame`, header included, as the guest of `tap`.
pub(crate) fn write(tap: &TapLink, frame: &[u8]) {
    assert_eq!(nix::unistd::write(tap.fd(), frame), Ok(frame.len()));
}

/// The next frame for the guest of `tap`; waits for it.
pub(crate) fn read(tap: &TapLink) -> Vec<u8> {
    let mut ready = [PollFd::new(tap.fd(), PollFlags::POLLIN)];
    assert_eq!(poll(&mut ready, PollTimeout::from(PATIENCE)), Ok(1), "nothing came to {}", tap.name());
    try_read(tap).expect("a frame")
}

/// The frame that waits for the guest of `tap`, if one does.
pub(crate) fn try_read(tap: &TapLink) -> Option<Vec<u8>> {
    let mut frame = vec![0; 2048];
    match nix::unistd::read(tap.fd(), &mut frame) {
        Ok(length) => {
            frame.truncate(length);
            Some(frame)
        }
        Err(Errno::EAGAIN) => None,
        Err(errno) => panic!("read {}: {errno}", tap.name()),
    }
}

/// Whether nothing has arrived at `socket`, which is non-blocking.
pub(crate) fn is_silent(socket: &std::net::UdpSocket) -> bool {
    matches!(socket.recv(&mut [0; 64]), Err(error) if error.kind() == ErrorKind::WouldBlock)
}
