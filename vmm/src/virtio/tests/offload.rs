//! Offloads on the way to the host, and which of them are agreed on.

use proptest::prelude::*;
use virtio_bindings::virtio_mmio as register;

use super::driver::{BUFFERS, Driver, FEATURES};
use super::{LINK, frame_to_host, with_header};
use crate::virtio::net::{NetCounters, Offloads, TX};

const CSUM: u64 = 1 << 0;
const GUEST_CSUM: u64 = 1 << 1;
const GUEST_TSO4: u64 = 1 << 7;
const HOST_TSO4: u64 = 1 << 11;
const SEND: u64 = FEATURES | CSUM | HOST_TSO4;

/// `struct virtio_net_hdr_v1`, by its fields.
fn header(flags: u8, kind: u8, [headers, segment, start, offset]: [u16; 4]) -> [u8; 12] {
    let mut bytes = [flags, kind, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    for (to, field) in bytes[2..10].chunks_exact_mut(2).zip([headers, segment, start, offset]) {
        to.copy_from_slice(&field.to_le_bytes());
    }
    bytes
}

/// A TCP frame of `length` bytes from the guest, without IP or TCP options.
fn tcp(length: usize) -> Vec<u8> {
    let mut frame = frame_to_host(length, 1);
    let total = u16::try_from(length - 14).unwrap();
    frame[16..18].copy_from_slice(&total.to_be_bytes());
    frame[46] = 0x50;
    frame
}

/// What came out of a device with `features` when the guest sent `frame` behind `header`, and its counters.
fn sent(features: u64, header: [u8; 12], frame: &[u8]) -> (Option<Vec<u8>>, NetCounters) {
    let (mut driver, wire) = Driver::with_features(features, 16);
    let bytes = with_header(header, frame);
    driver.put(BUFFERS, &bytes);
    driver.offer(TX, 0, &[(BUFFERS, bytes.len() as u32)], 0);
    assert_eq!(driver.service().unwrap().tx_completed, 1);
    let frame = wire.borrow_mut().from_guest.pop();
    (frame, *driver.transport.device().counters())
}

#[test]
fn the_host_is_told_what_the_driver_accepted_from_driver_ok_to_reset() {
    let both = Offloads { checksum: true, tcp4: true };
    let cases = [
        (0, Offloads::NONE),
        (CSUM | HOST_TSO4, Offloads::NONE),
        (GUEST_CSUM, Offloads { checksum: true, tcp4: false }),
        (GUEST_CSUM | GUEST_TSO4, both),
    ];
    for (features, expected) in cases {
        let (mut driver, wire) = Driver::on_wire(16);
        assert_eq!(wire.borrow().offloads, Some(Offloads::NONE));
        driver.negotiate(FEATURES | features);
        assert_eq!(wire.borrow().offloads, Some(Offloads::NONE), "not before DRIVER_OK");
        driver.write(register::VIRTIO_MMIO_STATUS, 0xf).unwrap();
        assert_eq!(wire.borrow().offloads, Some(expected), "{features:#x}");
        driver.write(register::VIRTIO_MMIO_STATUS, 0).unwrap();
        assert_eq!(wire.borrow().offloads, Some(Offloads::NONE));
    }
}

#[test]
fn a_restored_device_tells_the_host_as_well() {
    let (driver, _wire) = Driver::with_features(FEATURES | GUEST_CSUM | GUEST_TSO4, 16);
    let (io, wire) = super::fake::FakeIo::new();
    driver.cloned(io).unwrap();
    assert_eq!(wire.borrow().offloads, Some(Offloads { checksum: true, tcp4: true }));
}

#[test]
fn segmentation_without_checksums_is_refused() {
    for features in [HOST_TSO4, GUEST_TSO4, GUEST_TSO4 | CSUM, HOST_TSO4 | GUEST_CSUM] {
        let mut driver = Driver::reset();
        driver.negotiate(FEATURES | features);
        assert_eq!(driver.read(register::VIRTIO_MMIO_STATUS), 3, "{features:#x}");
    }
}

#[test]
fn a_checksum_is_left_to_the_host() {
    let (frame, _) = sent(SEND, header(1, 0, [9, 9, 34, 16]), &tcp(1514));
    assert_eq!(frame.unwrap(), with_header(header(1, 0, [0, 0, 34, 16]), &tcp(1514)));
    let mut udp = tcp(100);
    udp[23] = 17;
    let (frame, _) = sent(FEATURES | CSUM, header(1, 0, [0, 0, 34, 6]), &udp);
    assert_eq!(frame.unwrap(), with_header(header(1, 0, [0, 0, 34, 6]), &udp));
}

#[test]
fn segmentation_is_left_to_the_host() {
    for length in [54, 55, 1514, 1515, 65549] {
        // The length of headers is a hint only; what the host gets is what they are.
        let (frame, counters) = sent(SEND, header(1, 1, [3, 1460, 34, 16]), &tcp(length));
        assert_eq!(frame.unwrap(), with_header(header(1, 1, [54, 1460, 34, 16]), &tcp(length)));
        assert_eq!((counters.tx_frames, counters.tx_bytes), (1, length as u64));
    }
    let mut options = tcp(9000);
    options[14] = 0x46;
    options[14 + 24 + 12] = 0x80;
    let (frame, _) = sent(SEND, header(1, 1, [0, 1444, 38, 16]), &options);
    assert_eq!(frame.unwrap()[2..6], [70, 0, 0xa4, 5], "14 + 24 + 32 bytes of headers");
}

#[test]
fn requests_that_make_no_sense_are_dropped_and_counted() {
    let good = [54, 1460, 34, 16];
    let edit = |at: usize, byte: u8| {
        let mut frame = tcp(4000);
        frame[at] = byte;
        frame
    };
    let cases = [
        ("checksum not agreed on", FEATURES, header(1, 0, good), tcp(1000)),
        ("segmentation not agreed on", FEATURES | CSUM, header(1, 1, good), tcp(1000)),
        ("segmentation without checksum", SEND, header(0, 1, good), tcp(4000)),
        ("udp fragmentation", SEND, header(1, 3, good), tcp(1000)),
        ("ipv6", SEND, header(1, 4, good), tcp(1000)),
        ("udp segmentation", SEND, header(1, 5, good), tcp(1000)),
        ("ecn", SEND, header(1, 0x81, good), tcp(4000)),
        ("unknown segmentation", SEND, header(1, 2, good), tcp(4000)),
        ("checksum into the ip header", SEND, header(1, 0, [0, 0, 10, 16]), tcp(1000)),
        ("checksum of the ip header", SEND, header(1, 0, [0, 0, 14, 10]), tcp(1000)),
        ("checksum over less", SEND, header(1, 0, [0, 0, 35, 16]), tcp(1000)),
        ("checksum elsewhere", SEND, header(1, 0, [0, 0, 34, 17]), tcp(1000)),
        ("checksum at udp's place", SEND, header(1, 0, [0, 0, 34, 6]), tcp(1000)),
        ("checksum behind the end", SEND, header(1, 0, [0, 0, 34, 16]), tcp(53)),
        ("checksum far behind the end", SEND, header(1, 0, [0, 0, u16::MAX, u16::MAX]), tcp(1000)),
        ("checksum of no tcp", SEND, header(1, 0, good), edit(23, 1)[..1000].to_vec()),
        ("checksum of a fragment", SEND, header(1, 0, good), edit(21, 1)[..1000].to_vec()),
        ("checksum of more fragments", SEND, header(1, 0, good), edit(20, 0x20)[..1000].to_vec()),
        ("segments of nothing", SEND, header(1, 1, [54, 0, 34, 16]), tcp(4000)),
        ("tiny segments", SEND, header(1, 1, [54, 47, 34, 16]), tcp(4000)),
        ("segments above the mtu", SEND, header(1, 1, [54, 1461, 34, 16]), tcp(4000)),
        ("segments of udp", SEND, header(1, 1, [54, 1000, 34, 6]), edit(23, 17)),
        ("short tcp header", SEND, header(1, 1, good), edit(46, 0x40)),
        ("tcp header longer than the frame", SEND, header(1, 1, good), {
            let mut frame = tcp(60);
            frame[46] = 0xf0;
            frame
        }),
        ("another length in the ip header", SEND, header(1, 1, good), edit(17, 0x77)),
    ];
    for (what, features, header, frame) in cases {
        let (sent, counters) = sent(features, header, &frame);
        assert_eq!(sent, None, "{what}");
        assert_eq!((counters.tx_dropped_offload, counters.tx_dropped()), (1, 1), "{what}");
    }
}

#[test]
fn long_frames_need_segmentation_and_end_at_what_ip_can_say() {
    for (features, header, length) in [
        (SEND, header(0, 0, [0; 4]), 1515),
        (SEND, header(1, 0, [0, 0, 34, 16]), 1515),
        (FEATURES | CSUM, header(1, 1, [54, 1460, 34, 16]), 1515),
        (SEND, header(1, 1, [54, 1460, 34, 16]), 65550),
    ] {
        let mut frame = tcp(length.min(65549));
        frame.resize(length, 0);
        let (sent, counters) = sent(features, header, &frame);
        assert_eq!((sent, counters.tx_dropped_length), (None, 1));
    }
}

#[test]
fn the_filter_holds_for_segmented_frames() {
    type Field = fn(&NetCounters) -> u64;
    let cases: [(usize, u8, Field); 5] = [
        (11, 9, |c| c.tx_dropped_source),
        (29, 9, |c| c.tx_dropped_source),
        (0, 0xff, |c| c.tx_dropped_destination),
        (33, 3, |c| c.tx_dropped_destination),
        (12, 0x86, |c| c.tx_dropped_protocol),
    ];
    for (at, byte, field) in cases {
        let mut frame = tcp(30_000);
        frame[at] = byte;
        let (sent, counters) = sent(SEND, header(1, 1, [54, 1460, 34, 16]), &frame);
        assert_eq!((sent, field(&counters)), (None, 1));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    /// Whatever a guest writes, the host's kernel sees only requests that the frame itself bears out.
    #[test]
    fn no_header_gets_through_that_does_not_fit_its_frame(
        flags in prop_oneof![4 => Just(1u8), 1 => any::<u8>()],
        kind in prop_oneof![3 => Just(1u8), 2 => Just(0), 1 => any::<u8>()],
        segment in prop_oneof![2 => 40u16..60, 2 => 1400u16..1500, 1 => any::<u16>()],
        start in prop_oneof![6 => Just(34u16), 1 => 30u16..40, 1 => any::<u16>()],
        offset in prop_oneof![6 => Just(16u16), 1 => any::<u16>()],
        headers in any::<u16>(),
        length in prop_oneof![40usize..80, 1400usize..1600, 60_000usize..65_560],
        edits in prop::collection::vec((14usize..60, any::<u8>()), 0..3),
        features in prop::sample::select(vec![FEATURES, FEATURES | CSUM, SEND]),
    ) {
        let mut frame = tcp(length.clamp(54, 65549));
        frame.resize(length, 0);
        for (at, byte) in edits {
            if let Some(to) = frame.get_mut(at) {
                *to = byte;
            }
        }
        let (sent, counters) = sent(features, header(flags, kind, [headers, segment, start, offset]), &frame);
        let Some(sent) = sent else {
            prop_assert_eq!(counters.tx_dropped(), 1);
            return Ok(());
        };
        prop_assert_eq!(&sent[12..], &frame[..]);
        let field = |at: usize| usize::from(u16::from_le_bytes([sent[at], sent[at + 1]]));
        let tcp_at = 14 + 4 * usize::from(frame[14] & 0xf);
        prop_assert!(frame[26..30] == LINK.address.octets() && frame[30..34] == LINK.gateway.octets());
        match (sent[0], sent[1]) {
            (0, 0) => prop_assert_eq!(&sent[..12], &[0; 12]),
            (1, kind) => {
                prop_assert!(features & CSUM != 0);
                prop_assert_eq!(field(6), tcp_at);
                prop_assert!(field(6) + field(8) + 2 <= length);
                prop_assert!(frame[23] == 6 && field(8) == 16 || frame[23] == 17 && field(8) == 6);
                if kind == 1 {
                    prop_assert!(features & HOST_TSO4 != 0 && frame[23] == 6);
                    prop_assert_eq!(field(2), tcp_at + 4 * usize::from(frame[tcp_at + 12] >> 4));
                    prop_assert!(field(2) >= tcp_at + 20 && field(2) <= length);
                    prop_assert!(field(4) >= 48 && field(2) + field(4) <= 1514);
                } else {
                    prop_assert!(kind == 0 && length <= 1514 && field(2) == 0 && field(4) == 0);
                }
            }
            other => prop_assert!(false, "{:?}", other),
        }
    }
}
