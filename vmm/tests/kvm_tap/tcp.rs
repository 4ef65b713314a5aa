//! Just enough TCP to have a connection with the host's.

use std::net::Ipv4Addr;

use weir_net::tap::TapLink;

use crate::driver::Driver;

pub(crate) const FIN: u8 = 1;
pub(crate) const SYN: u8 = 2;
pub(crate) const PUSH: u8 = 8;
pub(crate) const ACK: u8 = 16;
/// Of an Ethernet, IPv4 and TCP header without options, behind the virtio header.
const DATA: usize = 12 + 14 + 20 + 20;
const PORT: u16 = 4000;

/// The guest's end of a connection.
pub(crate) struct Connection<'d> {
    driver: &'d mut Driver,
    tap: &'d TapLink,
    port: u16,
    sent: u32,
    received: u32,
    /// The virtio header for what is sent: who computes checksums, and who cuts into segments.
    header: fn(usize) -> [u8; 12],
}

/// A frame as it arrived.
pub(crate) struct Arrived {
    pub(crate) header: [u8; 12],
    /// Length without virtio header.
    pub(crate) length: usize,
    pub(crate) payload: Vec<u8>,
}

impl<'d> Connection<'d> {
    /// Connects to `port` at the host's end of `tap`.
    pub(crate) fn open(
        driver: &'d mut Driver,
        tap: &'d TapLink,
        port: u16,
        header: fn(usize) -> [u8; 12],
    ) -> Self {
        let mut connection = Self { driver, tap, port, sent: 1000, received: 0, header };
        connection.send(SYN, &[]);
        connection.sent += 1;
        let frame = connection.driver.receive();
        let tcp = &frame[12 + 14 + 20..];
        assert_eq!(tcp[13], SYN | ACK);
        connection.received = sequence(tcp).wrapping_add(1);
        connection.send(ACK, &[]);
        connection
    }

    /// Sends `data` in one frame.
    pub(crate) fn send(&mut self, flags: u8, data: &[u8]) {
        let link = self.tap.link();
        let options: &[u8] = if flags & SYN != 0 { &[2, 4, 0x05, 0xb4] } else { &[] };
        let mut tcp = [PORT.to_be_bytes(), self.port.to_be_bytes()].concat();
        tcp.extend(self.sent.to_be_bytes());
        tcp.extend(self.received.to_be_bytes());
        tcp.extend([0x50 + ((options.len() as u8 / 4) << 4), flags, 0xff, 0xff, 0, 0, 0, 0]);
        tcp.extend(options);
        tcp.extend(data);
        let header = (self.header)(data.len());
        let pseudo = pseudo_header(link.guest, link.host, tcp.len());
        // Left to the host: only the pseudo-header's sum. Otherwise: all of it.
        let sum = if header[0] == 0 { !sum(&[&pseudo[..], &tcp].concat()) } else { sum(&pseudo) };
        tcp[16..18].copy_from_slice(&sum.to_be_bytes());
        let frame =
            [&header[..], &link.host_mac, &link.guest_mac, &[8, 0], &ipv4(link.guest, link.host, tcp.len())];
        self.driver.send(&[frame.concat(), tcp].concat());
        self.sent = self.sent.wrapping_add(data.len() as u32);
    }

    /// The next frame with data in it, acknowledged.
    pub(crate) fn receive(&mut self) -> Arrived {
        loop {
            let frame = self.driver.receive();
            let total = usize::from(u16::from_be_bytes([frame[28], frame[29]]));
            assert_eq!(frame.len(), 12 + 14 + total, "IP says how long the frame is");
            let tcp = &frame[46..];
            assert_eq!(tcp[12] >> 4, 5, "no options were agreed on");
            if frame.len() == DATA || sequence(tcp) != self.received {
                continue;
            }
            let payload = frame[DATA..].to_vec();
            let header: [u8; 12] = frame[..12].try_into().expect("12 bytes");
            if header[0] & 1 == 0 {
                let link = self.tap.link();
                let pseudo = pseudo_header(link.host, link.guest, tcp.len());
                assert_eq!(sum(&[&pseudo[..], tcp].concat()), 0xffff, "TCP checksum");
            }
            self.received = self.received.wrapping_add(payload.len() as u32);
            self.send(ACK, &[]);
            return Arrived { header, length: frame.len() - 12, payload };
        }
    }
}

fn sequence(tcp: &[u8]) -> u32 {
    u32::from_be_bytes(tcp[4..8].try_into().expect("four bytes"))
}

fn ipv4(from: Ipv4Addr, to: Ipv4Addr, payload: usize) -> Vec<u8> {
    let total = u16::try_from(20 + payload).expect("an IPv4 packet");
    let [high, low] = total.to_be_bytes();
    let mut ip = vec![0x45, 0, high, low, 0, 0, 0x40, 0, 64, 6, 0, 0];
    ip.extend(from.octets());
    ip.extend(to.octets());
    let checksum = !sum(&ip);
    ip[10..12].copy_from_slice(&checksum.to_be_bytes());
    ip
}

fn pseudo_header(from: Ipv4Addr, to: Ipv4Addr, length: usize) -> Vec<u8> {
    let length = u16::try_from(length).expect("an IPv4 packet");
    [&from.octets()[..], &to.octets(), &[0, 6], &length.to_be_bytes()].concat()
}

/// RFC 1071, without the final complement.
fn sum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}
