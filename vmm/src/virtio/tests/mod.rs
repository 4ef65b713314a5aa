//! Tests of transport and network device from the driver's side, down to the last descriptor.
#![expect(clippy::cast_possible_truncation, reason = "a test's own small numbers")]

mod driver;
mod fake;
mod hostile;
mod limits;
mod merge;
mod offload;
mod registers;
mod rx;
mod state;
mod tap;
mod traffic;
mod transport;
mod tx;

use std::net::Ipv4Addr;

use crate::spec::{NetLimits, NetSpec};

/// The link that all tests use.
const LINK: NetSpec = NetSpec {
    mac: [0x02, 0x57, 10, 88, 0, 1],
    address: Ipv4Addr::new(10, 88, 0, 1),
    prefix: 31,
    gateway: Ipv4Addr::new(10, 88, 0, 0),
    gateway_mac: [0x02, 0x57, 10, 88, 0, 0],
    mtu: 1500,
    limits: NetLimits::NONE,
};

/// A frame of `length` bytes from the guest to the host, `seed` making its payload unlike others.
fn frame_to_host(length: usize, seed: u8) -> Vec<u8> {
    frame(LINK.gateway_mac, LINK.mac, LINK.address, LINK.gateway, length, seed)
}

/// The same in the other direction.
fn frame_to_guest(length: usize, seed: u8) -> Vec<u8> {
    frame(LINK.mac, LINK.gateway_mac, LINK.gateway, LINK.address, length, seed)
}

fn frame(to: [u8; 6], from: [u8; 6], source: Ipv4Addr, target: Ipv4Addr, length: usize, seed: u8) -> Vec<u8> {
    let mut frame = Vec::with_capacity(length);
    frame.extend(to);
    frame.extend(from);
    frame.extend([0x08, 0x00]);
    frame.extend([0x45, 0, 0, 0, 0, 0, 0, 0, 64, 6, 0, 0]);
    frame.extend(source.octets());
    frame.extend(target.octets());
    frame.extend((0u8..=255).cycle().map(|byte| byte.wrapping_mul(31).wrapping_add(seed)).take(length - 34));
    frame
}

/// `frame` behind a virtio header of the bytes `header`.
fn with_header(header: [u8; 12], frame: &[u8]) -> Vec<u8> {
    [&header, frame].concat()
}

/// A virtio header full of what means nothing where no offloads were agreed on.
const NOISE: [u8; 12] = [0xfe, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
