//! A real guest on the network device. A socket pair stands for the TAP, so that this needs no network at all.

use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use virtio_bindings::virtio_mmio as register;
use weir_abi::control::{self, Slice};
use weir_abi::layout;
use weir_vmm::{CrashReason, ExitReason, NetLimits, NetSpec, VmEvent, VmSpec};

use super::elf::{PF_R, PF_W, TestSegment};
use super::guests;
use super::harness::{Vm, image, sealed, spec};

/// Where the script of [`guests::scripted::script`] is.
const SCRIPT: u64 = 0x24_0000;
/// A writable segment: descriptor table, available and used ring of both queues, and buffers.
const RINGS: [[u64; 3]; 2] = [[0x30_0000, 0x30_0100, 0x30_0200], [0x30_1000, 0x30_1100, 0x30_1200]];
/// Where the guest receives.
pub(crate) const RECEIVED: u64 = 0x30_2000;
/// A frame with its header, to be sent.
pub(crate) const TO_SEND: u64 = 0x30_3000;
/// The code of a good end and its text.
const GOODBYE: u64 = 0x30_4000;
const QUEUE_SIZE: u32 = 8;
pub(crate) const RX: usize = 0;
pub(crate) const TX: usize = 1;
const NEXT: u16 = 1;
pub(crate) const WRITE: u16 = 2;
/// What a guest without offloads may write into a header.
const NOISE: [u8; 12] = [0xfe, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
/// The header of every frame sent, and of every frame received.
pub(crate) const HEADER: [u8; 12] = [0; 12];
const RECEIVED_HEADER: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0];
/// Far beyond what any test needs.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) const LINK: NetSpec = NetSpec {
    mac: [0x02, 0x57, 10, 88, 0, 1],
    address: Ipv4Addr::new(10, 88, 0, 1),
    prefix: 31,
    gateway: Ipv4Addr::new(10, 88, 0, 0),
    gateway_mac: [0x02, 0x57, 10, 88, 0, 0],
    mtu: 1500,
    limits: NetLimits::NONE,
};

/// One step of a guest's script; the numbers are the guest's operation codes.
#[derive(Clone, Copy)]
pub(crate) enum Step {
    /// 0: stores 32 bits.
    Store32(u64, u32),
    /// 1: stores 64 bits.
    Store64(u64, u64),
    /// 2: parks until 16 bits in memory have this value.
    Await(u64, u16),
    /// 3: loads 32 bits, and reports them if they are not these.
    Expect(u64, u32),
}

fn register(offset: u32, value: u32) -> Step {
    Step::Store32(layout::VIRTIO_NET + u64::from(offset), value)
}

fn assemble(steps: &[Step]) -> Vec<u8> {
    let words = steps.iter().flat_map(|step| match *step {
        Step::Store32(address, value) => [0, address, value.into()],
        Step::Store64(address, value) => [1, address, value],
        Step::Await(address, value) => [2, address, value.into()],
        Step::Expect(address, value) => [3, address, value.into()],
    });
    words.flat_map(u64::to_le_bytes).collect()
}

/// Everything up to DRIVER_OK.
pub(crate) fn bring_up() -> Vec<Step> {
    let mut steps = vec![
        Step::Expect(layout::VIRTIO_NET, u32::from_le_bytes(*b"virt")),
        register(register::VIRTIO_MMIO_STATUS, 3),
        register(register::VIRTIO_MMIO_DRIVER_FEATURES_SEL, 1),
        register(register::VIRTIO_MMIO_DRIVER_FEATURES, 1),
        register(register::VIRTIO_MMIO_STATUS, 0xb),
        Step::Expect(layout::VIRTIO_NET + u64::from(register::VIRTIO_MMIO_STATUS), 0xb),
    ];
    for (queue, [descriptors, available, used]) in (0..).zip(RINGS) {
        for (register_, value) in [
            (register::VIRTIO_MMIO_QUEUE_SEL, queue),
            (register::VIRTIO_MMIO_QUEUE_NUM, QUEUE_SIZE),
            (register::VIRTIO_MMIO_QUEUE_DESC_LOW, low(descriptors)),
            (register::VIRTIO_MMIO_QUEUE_AVAIL_LOW, low(available)),
            (register::VIRTIO_MMIO_QUEUE_USED_LOW, low(used)),
            (register::VIRTIO_MMIO_QUEUE_READY, 1),
        ] {
            steps.push(register(register_, value));
        }
    }
    steps.push(register(register::VIRTIO_MMIO_STATUS, 0xf));
    steps
}

fn low(address: u64) -> u32 {
    u32::try_from(address).expect("all addresses here are below 4 GiB")
}

/// Writes descriptor 0 and makes it the first available chain.
fn offer(queue: usize, address: u64, length: u32, flags: u16) -> Vec<Step> {
    offer_nth(1, queue, address, length, flags)
}

/// The same as the `nth` chain, when it has come back.
pub(crate) fn offer_nth(nth: u32, queue: usize, address: u64, length: u32, flags: u16) -> Vec<Step> {
    let [descriptors, available, _] = RINGS[queue];
    vec![
        Step::Store64(descriptors, address),
        Step::Store64(descriptors + 8, u64::from(length) | u64::from(flags) << 32),
        // Its entry in the ring is 0, as all are.
        Step::Store32(available, nth << 16),
    ]
}

pub(crate) fn used(queue: usize) -> u64 {
    RINGS[queue][2] + 2
}

pub(crate) fn control_page(register: u64, value: u64) -> Step {
    Step::Store64(layout::CONTROL + register, value)
}

pub(crate) fn frame(to: [u8; 6], from: [u8; 6], source: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let ip = [&[0x45, 0, 0, 24, 0, 0, 0, 0, 64, 253, 0, 0][..], &source.octets(), &target.octets(), b"weir"]
        .concat();
    [&to[..], &from, &[0x08, 0x00], &ip].concat()
}

pub(crate) fn to_host() -> Vec<u8> {
    frame(LINK.gateway_mac, LINK.mac, LINK.address, LINK.gateway)
}

/// Starts a guest with this script; the other end of its network.
pub(crate) fn start(steps: &[Step]) -> (Vm, UnixDatagram) {
    let (tap, host) = UnixDatagram::pair().expect("a socket pair is to be had");
    tap.set_nonblocking(true).expect("the socket is open");
    host.set_read_timeout(Some(PATIENCE)).expect("the socket is open");
    let mut memory = vec![0; 0x5000];
    let mut put = |address: u64, bytes: &[u8]| {
        let at = usize::try_from(address - RINGS[0][0]).expect("the segment is small");
        memory[at..at + bytes.len()].copy_from_slice(bytes);
    };
    put(TO_SEND, &[NOISE.to_vec(), to_host()].concat());
    put(GOODBYE, b"\x000");
    let image = image(guests::scripted::script::code())
        .with(TestSegment::load(SCRIPT, PF_R, &assemble(steps)))
        .with(TestSegment::load(RINGS[0][0], PF_R | PF_W, &memory));
    let spec = VmSpec { net: Some(LINK), ..spec() };
    (Vm::with_tap(spec, sealed(&image.build()), Some(OwnedFd::from(tap)), |_| {}), host)
}

#[test]
fn frames_go_both_ways_and_wake_the_guest() {
    let to_guest = frame(LINK.mac, LINK.gateway_mac, LINK.gateway, LINK.address);
    let length = u32::try_from(12 + to_host().len()).unwrap();
    let mut steps = bring_up();
    steps.extend(offer(RX, RECEIVED, 0x800, WRITE));
    // A kick, though none is needed; and one of a queue that is not there.
    steps.push(register(register::VIRTIO_MMIO_QUEUE_NOTIFY, 0));
    steps.push(register(register::VIRTIO_MMIO_QUEUE_NOTIFY, 77));
    steps.push(control_page(control::READY, 0));
    steps.push(Step::Await(used(RX), 1));
    for (at, word) in (0..).zip([RECEIVED_HEADER.to_vec(), to_guest.clone()].concat().chunks_exact(4)) {
        steps.push(Step::Expect(RECEIVED + 4 * at, u32::from_le_bytes(word.try_into().unwrap())));
    }
    steps.extend(offer(TX, TO_SEND, length, 0));
    steps.push(Step::Await(used(TX), 1));
    steps.push(control_page(control::EXIT, Slice::new(GOODBYE, 2).0));

    let (vm, host) = start(&steps);
    assert_eq!(vm.event(), Some(VmEvent::Ready));
    host.send(&[HEADER.to_vec(), to_guest].concat()).unwrap();
    let mut buffer = [0; 2048];
    let received = host.recv(&mut buffer).unwrap();
    assert_eq!(buffer[..received], [HEADER.to_vec(), to_host()].concat());
    assert_eq!(vm.finish(), (ExitReason::Exited(0), vec![]));
}

#[test]
fn breaking_the_ring_protocol_ends_the_vm_with_the_reason() {
    let break_with = |steps: Vec<Step>, expected: &str| {
        let mut script = bring_up();
        script.extend(steps);
        script.push(Step::Await(used(RX), 0xdead));
        let (vm, _host) = start(&script);
        let (reason, _) = vm.finish();
        assert_eq!(reason, ExitReason::Crashed(CrashReason::Virtio(expected.into())));
    };
    break_with(offer(TX, TO_SEND, 64, NEXT), "queue 1: descriptor chain from 0 is a loop");
    break_with(
        offer(RX, 0xffff_ffff_f000, 64, WRITE),
        "queue 0: buffer of 64 bytes at 0xfffffffff000 is outside of memory",
    );
    break_with(
        offer(TX, TO_SEND, u32::MAX, 0),
        "queue 1: buffer of 4294967295 bytes at 0x303000 is outside of memory",
    );
    break_with(
        vec![Step::Store32(RINGS[TX][1], 9 << 16)],
        "queue 1: available index jumps by more than the queue's size",
    );
    break_with(offer(RX, RECEIVED, 0x800, 0), "queue 0: chain from 0 has a buffer of the wrong direction");
}

#[test]
fn a_device_does_not_reach_what_ring_3_cannot() {
    for address in [layout::SYSTEM, layout::SYSTEM_END - 64, layout::GATE_CODE, layout::BOOT_INFO] {
        let mut script = bring_up();
        script.extend(offer(RX, address, 64, WRITE));
        script.push(Step::Await(used(RX), 0xdead));
        let (vm, _host) = start(&script);
        let expected = format!("queue 0: buffer of 64 bytes at {address:#x} is outside of memory");
        assert_eq!(vm.finish().0, ExitReason::Crashed(CrashReason::Virtio(expected)));
    }
}

#[test]
fn a_queue_in_page_tables_ends_the_vm() {
    let mut script = bring_up();
    script.truncate(6);
    script.push(register(register::VIRTIO_MMIO_QUEUE_DESC_LOW, low(layout::SYSTEM)));
    script.push(register(register::VIRTIO_MMIO_QUEUE_READY, 1));
    script.push(Step::Await(used(RX), 0xdead));
    let (vm, _host) = start(&script);
    let expected = "queue 0: descriptor table at 0x10000 is misaligned or outside of memory";
    assert_eq!(vm.finish().0, ExitReason::Crashed(CrashReason::Virtio(expected.into())));
}
