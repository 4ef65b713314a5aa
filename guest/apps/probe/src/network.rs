//! Misuse of the network device.

use core::time::Duration;

use weir_abi::layout;
use weir_libos::raw::{self, NEXT, RawQueue};

/// A length that passes for a frame's, bytes.
const FRAME: u32 = 76;

/// The device's transmit queue, READY said, so that what follows is the misdeed of a VM in service.
fn queue() -> RawQueue {
    let Some(queue) = RawQueue::open(&raw::info()) else { panic!("no network device") };
    raw::ready();
    queue
}

/// Descriptors 0 and 1 lead to each other.
pub(crate) fn ring_loop() -> ! {
    let mut queue = queue();
    queue.describe(0, layout::IMAGE_MIN, FRAME, NEXT, 1);
    queue.describe(1, layout::IMAGE_MIN, FRAME, NEXT, 0);
    queue.offer(0);
    raw::park_forever()
}

/// A buffer in the MMIO window, where no memory is.
pub(crate) fn ring_range() -> ! {
    let mut queue = queue();
    queue.describe(0, layout::CONTROL, FRAME, 0, 0);
    queue.offer(0);
    raw::park_forever()
}

/// A buffer that begins in memory and is as long as can be written.
pub(crate) fn ring_length() -> ! {
    let mut queue = queue();
    queue.describe(0, layout::IMAGE_MIN, u32::MAX, 0, 0);
    queue.offer(0);
    raw::park_forever()
}

/// More available entries than the ring has.
pub(crate) fn avail_jump() -> ! {
    let mut queue = queue();
    queue.describe(0, layout::IMAGE_MIN, FRAME, 0, 0);
    queue.jump(raw::RING * 4);
    raw::park_forever()
}

/// IPv4 packets in turn from an address that is not ours, and frames from a MAC address that is not.
pub(crate) async fn spoof() {
    let mut queue = queue();
    let info = raw::info();
    for number in (0..raw::RING).cycle() {
        let foreign_mac = number % 2 == 0;
        let source = if foreign_mac { info.address } else { [192, 0, 2, 1] };
        let mac = if foreign_mac { [2, 0, 0, 0, 0, 1] } else { info.mac };
        queue.send(number, &frame(info.gateway_mac, mac, source, info.gateway));
        raw::park_yield();
        weir_libos::sleep(Duration::from_millis(1)).await;
    }
}

/// Frames that are beyond reproach but for their number: as many as the device takes.
pub(crate) fn flood() -> ! {
    let mut queue = queue();
    let mut generation = None;
    // The ring gives them back in this order.
    let mut buffers = (0..raw::RING).cycle();
    let mut old = 0;
    loop {
        let info = raw::info();
        // As another VM it has another address.
        if generation.replace(info.generation) != Some(info.generation) {
            old = raw::RING;
        }
        let frame = frame(info.gateway_mac, info.mac, info.address, info.gateway);
        for buffer in buffers.by_ref().take(queue.free().into()) {
            if old > 0 {
                old -= 1;
                queue.send(buffer, &frame);
            } else {
                queue.offer(buffer);
            }
        }
        raw::park_yield();
    }
}

/// An Ethernet frame with an empty UDP datagram from port 7 to port 9.
fn frame(to: [u8; 6], from: [u8; 6], source: [u8; 4], destination: [u8; 4]) -> [u8; 60] {
    let mut frame = [0; 60];
    frame[..6].copy_from_slice(&to);
    frame[6..12].copy_from_slice(&from);
    frame[12..14].copy_from_slice(&[0x08, 0x00]);
    let ip = &mut frame[14..34];
    ip[..10].copy_from_slice(&[0x45, 0, 0, 28, 0, 0, 0x40, 0, 64, 17]);
    ip[12..16].copy_from_slice(&source);
    ip[16..].copy_from_slice(&destination);
    let sum = ip.chunks(2).fold(0u32, |sum, pair| sum + (u32::from(pair[0]) << 8 | u32::from(pair[1])));
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = !u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap_or(0);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    frame[34..42].copy_from_slice(&[0, 7, 0, 9, 0, 8, 0, 0]);
    frame
}
