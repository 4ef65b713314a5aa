//! Whom a load balancer has accepted a connection from: the PROXY protocol, versions 1 and 2
//! (https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt).
//!
//! Only trusted hosts are asked. From others, what looks like such a header is an HTTP request that makes no sense.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;

use ipnetwork::IpNetwork;
use pingora::protocols::l4::socket;
use pingora::protocols::l4::stream::Stream as Socket;
use pingora::protocols::{GetSocketDigest, SocketDigest};
use ppp::{PartialResult, v1, v2};
use tokio::io::AsyncReadExt;
use weir_config::model::ProxyProtocol;

/// Longest header, bytes: HAProxy sends fewer than 536, and vendors add a few hundred.
const LONGEST: usize = 4096;

const VERSION_1: &[u8] = b"PROXY ";
/// Longest header of version 1, bytes.
const LONGEST_LINE: usize = 107;
const VERSION_2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Why a trusted host's connection cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProxyProtocolError {
    /// It broke off.
    #[error("read the PROXY protocol's header")]
    Read(#[from] io::Error),
    /// It begins with something else.
    #[error("no PROXY protocol header")]
    NotOne,
}

/// Gives `socket` the client's address if it comes from somebody of `trusted` who passes a client on; what follows the
/// header is left on the socket. Otherwise the socket is as it was.
pub(super) async fn read(socket: &mut Socket, trusted: &ProxyProtocol) -> Result<(), ProxyProtocolError> {
    let digest = socket.get_socket_digest();
    let peer = digest.as_ref().and_then(|digest| digest.peer_addr()?.as_inet()).map(SocketAddr::ip);
    let passes_on = match trusted {
        ProxyProtocol::Nobody => false,
        ProxyProtocol::From(networks) => peer.is_some_and(|peer| is_trusted(peer, networks)),
        ProxyProtocol::Everybody => true,
    };
    if !passes_on {
        return Ok(());
    }
    let mut bytes = Vec::new();
    let header = loop {
        match parse(&bytes) {
            Parsed::Header(header) => break header,
            Parsed::More if bytes.len() < LONGEST => {}
            Parsed::More | Parsed::Other => return Err(ProxyProtocolError::NotOne),
        }
        if socket.read_buf(&mut bytes).await? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
    };
    socket.rewind(&bytes[header.length..]);
    if let Some(client) = header.client {
        let told = SocketDigest::from_raw_fd(socket.as_raw_fd());
        // It is empty as yet.
        let _ = told.peer_addr.set(Some(socket::SocketAddr::Inet(client)));
        socket.set_socket_digest(told);
    }
    Ok(())
}

/// IPv4 is IPv4, however the socket writes it.
fn is_trusted(peer: IpAddr, trusted: &[IpNetwork]) -> bool {
    let peer = peer.to_canonical();
    trusted.iter().any(|network| network.contains(peer))
}

/// What a connection begins with.
#[derive(Debug, PartialEq, Eq)]
enum Parsed {
    Header(Header),
    /// Perhaps one, when more of it is there.
    More,
    Other,
}

#[derive(Debug, PartialEq, Eq)]
struct Header {
    /// Bytes.
    length: usize,
    /// `None`: the connection is the load balancer's own, or not a client's with an IP address.
    client: Option<SocketAddr>,
}

fn parse(bytes: &[u8]) -> Parsed {
    let begins_with = |start: &[u8]| bytes.iter().zip(start).all(|(byte, expected)| byte == expected);
    if begins_with(VERSION_2) {
        return parse_version_2(bytes);
    }
    if !begins_with(VERSION_1) {
        return Parsed::Other;
    }
    // A part of a line may look like a wrong one to the parser.
    match bytes.iter().take(LONGEST_LINE).position(|byte| *byte == b'\n') {
        Some(end) => parse_version_1(&bytes[..=end]),
        None if bytes.len() < LONGEST_LINE => Parsed::More,
        None => Parsed::Other,
    }
}

/// Bytes of the header that a connection begins with, if it is one that is whole.
#[cfg(test)]
pub(crate) fn header_length(bytes: &[u8]) -> Option<usize> {
    match parse(bytes) {
        Parsed::Header(header) => Some(header.length),
        Parsed::More | Parsed::Other => None,
    }
}

fn parse_version_1(line: &[u8]) -> Parsed {
    let Ok(header) = v1::Header::try_from(line) else { return Parsed::Other };
    let client = match header.addresses {
        v1::Addresses::Tcp4(from) => Some((from.source_address, from.source_port).into()),
        v1::Addresses::Tcp6(from) => Some((from.source_address, from.source_port).into()),
        v1::Addresses::Unknown => None,
    };
    Parsed::Header(Header { length: line.len(), client })
}

fn parse_version_2(bytes: &[u8]) -> Parsed {
    let header = v2::Header::try_from(bytes);
    if header.is_incomplete() {
        return Parsed::More;
    }
    let Ok(header) = header else { return Parsed::Other };
    let client = match (header.command, header.addresses) {
        (v2::Command::Proxy, v2::Addresses::IPv4(from)) => {
            Some((from.source_address, from.source_port).into())
        }
        (v2::Command::Proxy, v2::Addresses::IPv6(from)) => {
            Some((from.source_address, from.source_port).into())
        }
        _ => None,
    };
    Parsed::Header(Header { length: header.len(), client })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BEGINNINGS: &[&[u8]] = &[b"", b"PROXY ", b"PROXY TCP4 ", b"\r\n\r\n\0\r\nQUIT\n"];

    fn version_1(from: SocketAddr) -> Vec<u8> {
        let family = if from.is_ipv4() { "TCP4" } else { "TCP6" };
        format!("PROXY {family} {} {} {} 443\r\n", from.ip(), from.ip(), from.port()).into_bytes()
    }

    /// With `more` bytes behind the addresses, as TLVs are.
    fn version_2(command: u8, from: SocketAddr, more: &[u8]) -> Vec<u8> {
        let (family, address) = match from.ip() {
            IpAddr::V4(ip) => (0x11, ip.octets().to_vec()),
            IpAddr::V6(ip) => (0x21, ip.octets().to_vec()),
        };
        let ports = [from.port().to_be_bytes(), [1, 187]].concat();
        let rest = [&address[..], &address, &ports, more].concat();
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [b"\r\n\r\n\0\r\nQUIT\n", &[0x20 | command, family][..], &length, &rest].concat()
    }

    fn address() -> impl Strategy<Value = SocketAddr> {
        any::<(IpAddr, u16)>().prop_map(SocketAddr::from)
    }

    #[test]
    fn what_is_no_client_s_address_is_none() {
        let from = "192.0.2.1:7".parse().unwrap();
        for (bytes, length) in [
            (b"PROXY UNKNOWN\r\n".to_vec(), 15),
            (b"PROXY UNKNOWN 1 2 3 4\r\nGET".to_vec(), 23),
            (version_2(0, from, b""), 28),
            (b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0".to_vec(), 16),
            (b"\r\n\r\n\0\r\nQUIT\n\x21\0\0\0GET".to_vec(), 16),
        ] {
            assert_eq!(parse(&bytes), Parsed::Header(Header { length, client: None }), "{bytes:?}");
        }
    }

    #[test]
    fn other_beginnings_are_told_apart_at_once() {
        for bytes in [
            &b"GET / HTTP/1.1\r\n"[..],
            &[b"PROXY TCP6 ", &[b'f'; 96][..]].concat(),
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"\x16\x03\x01\x02\0\x01",
            b"PROXY TCP4 1.1.1.1 1.1.1.1 1\r\n",
            b"PROXY TCP4 1.1.1.1 1.1.1.1 1 99999\r\n",
            b"PROXY TCP4 ::1 ::1 1 2\r\n",
            b"PROXY TCP5 1.1.1.1 1.1.1.1 1 2\r\n",
            b"proxy TCP4 1.1.1.1 1.1.1.1 1 2\r\n",
            // Version 3, command 2, and a length that is too short.
            b"\r\n\r\n\0\r\nQUIT\n\x31\x11\0\x0c",
            b"\r\n\r\n\0\r\nQUIT\n\x22\x11\0\x0c",
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x02\0\0",
        ] {
            assert_eq!(parse(bytes), Parsed::Other, "{bytes:?}");
        }
    }

    #[test]
    fn trust_is_by_network() {
        let trusted = ["10.0.0.0/8".parse().unwrap(), "2001:db8::/32".parse().unwrap()];
        for (peer, expected) in [
            ("10.1.2.3", true),
            ("::ffff:10.1.2.3", true),
            ("11.0.0.1", false),
            ("2001:db8::1", true),
            ("::1", false),
        ] {
            assert_eq!(is_trusted(peer.parse().unwrap(), &trusted), expected, "{peer}");
        }
    }

    proptest! {
        #[test]
        fn a_header_is_read_to_its_end_and_not_further(
            from in address(),
            new in any::<bool>(),
            tlvs in proptest::collection::vec(any::<u8>(), 0..64),
            after in proptest::collection::vec(any::<u8>(), 0..64),
        ) {
            let header = if new { version_2(1, from, &tlvs) } else { version_1(from) };
            for end in 0..header.len() {
                prop_assert_eq!(parse(&header[..end]), Parsed::More, "{}", end);
            }
            let whole = [&header[..], &after].concat();
            let expected = Header { length: header.len(), client: Some(from) };
            prop_assert_eq!(parse(&whole), Parsed::Header(expected));
        }

        #[test]
        fn no_bytes_are_too_strange(
            start in proptest::sample::select(BEGINNINGS),
            bytes in proptest::collection::vec(any::<u8>(), 0..256),
        ) {
            let whole = [start, &bytes].concat();
            if let Parsed::Header(header) = parse(&whole) {
                prop_assert!(header.length <= whole.len());
            }
        }
    }
}
