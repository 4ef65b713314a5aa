//! A look at a packet before the stack gets it: does it open a connection?

use smoltcp::wire::{IpEndpoint, IpProtocol, Ipv4Packet, TcpPacket};

/// A segment that opens a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Syn {
    /// The client.
    pub(crate) remote: IpEndpoint,
    /// Our port.
    pub(crate) port: u16,
}

impl Syn {
    /// The SYN in an IPv4 `packet`; `None`: anything else. Checksums are left to the stack.
    pub(crate) fn parse(packet: &[u8]) -> Option<Self> {
        let ip = Ipv4Packet::new_checked(packet).ok()?;
        if ip.next_header() != IpProtocol::Tcp || ip.frag_offset() != 0 {
            return None;
        }
        let tcp = TcpPacket::new_checked(ip.payload()).ok()?;
        (tcp.syn() && !tcp.ack() && !tcp.rst()).then(|| Self {
            remote: IpEndpoint::new(ip.src_addr().into(), tcp.src_port()),
            port: tcp.dst_port(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bytes_are_safe(start in 0u8..255, bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let mut packet = vec![0x45, 0, 0, start, 0, 0, 0, 0, 64, 6];
            packet.extend(bytes);
            let _ = Syn::parse(&packet);
        }
    }
}
