//! What one call of the network device's `service` costs without the kernel, each direction by itself: frames as long
//! as the MTU allows, one and a batch of them, and one frame of 60,000 bytes of TCP, received into 40 buffers.
#![expect(missing_docs, reason = "criterion_group! makes a public function")]

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixDatagram;
use std::time::Instant;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use virtio_bindings::virtio_mmio as register;
use virtio_bindings::virtio_ring::VRING_DESC_F_WRITE;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap, VolatileSlice};
use weir_vmm::virtio::Transport;
use weir_vmm::virtio::net::{BATCH, FrameIo, NetDevice, Offloads, QUEUE_SIZE, RX, TX};
use weir_vmm::{NetLimits, NetSpec};

/// A frame with its virtio header, bytes; so long is each receive buffer.
const LENGTH: usize = 12 + 1500;
/// A frame of many segments with its virtio header, bytes.
const LONG: usize = 12 + 60_000;
/// VERSION_1; with CSUM, GUEST_CSUM, GUEST_TSO4, HOST_TSO4 and MRG_RXBUF.
const PLAIN: u64 = 1 << 32;
const OFFLOADS: u64 = PLAIN | 1 << 0 | 1 << 1 | 1 << 7 | 1 << 11 | 1 << 15;
/// Checksum needed, TCP over IPv4, 54 bytes of headers, segments of 1460.
const SEGMENTED: [u8; 12] = [1, 1, 54, 0, 0xb4, 5, 34, 0, 16, 0, 0, 0];
/// Rings of receive and transmit queue: descriptor table, available ring, used ring.
const QUEUES: [[u32; 3]; 2] = [[0x1_0000, 0x1_2000, 0x1_4000], [0x2_0000, 0x2_2000, 0x2_4000]];
/// Receive buffers, and the one frame to send.
const BUFFERS: u64 = 0x4_0000;
const SENT: u64 = 0x10_0000;
const LINK: NetSpec = NetSpec {
    mac: [2, 0x57, 10, 88, 0, 1],
    address: std::net::Ipv4Addr::new(10, 88, 0, 1),
    prefix: 31,
    gateway: std::net::Ipv4Addr::new(10, 88, 0, 0),
    gateway_mac: [2, 0x57, 10, 88, 0, 0],
    mtu: 1500,
    limits: NetLimits::NONE,
};

/// Copies frames as the kernel would.
struct Memory {
    frame: Vec<u8>,
    fd: UnixDatagram,
}

impl FrameIo for Memory {
    fn set_offloads(&mut self, _: Offloads) -> io::Result<()> {
        Ok(())
    }

    fn receive(&mut self, head: &mut [u8], body: &[VolatileSlice<'_>]) -> io::Result<usize> {
        let (first, mut rest) = self.frame.split_at(head.len());
        head.copy_from_slice(first);
        for piece in body {
            let (now, later) = rest.split_at(piece.len().min(rest.len()));
            piece.copy_from(now);
            rest = later;
        }
        Ok(self.frame.len())
    }

    fn send(&mut self, head: &[u8], body: &[VolatileSlice<'_>]) -> io::Result<usize> {
        let (first, mut rest) = self.frame.split_at_mut(head.len());
        first.copy_from_slice(head);
        for piece in body {
            let copied = piece.copy_to(rest);
            rest = &mut rest[copied..];
        }
        Ok(self.frame.len())
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A frame of `length` bytes with its header from one end of the link to the other.
fn frame(length: usize, to: &[u8; 6], from: &[u8; 6], source: [u8; 4], target: [u8; 4]) -> Vec<u8> {
    let mut frame = vec![0; length];
    if length > LENGTH {
        frame[..12].copy_from_slice(&SEGMENTED);
    }
    frame[12..18].copy_from_slice(to);
    frame[18..24].copy_from_slice(from);
    frame[24..27].copy_from_slice(&[0x08, 0x00, 0x45]);
    let total = u16::try_from(length - 26).expect("an IPv4 packet");
    frame[28..30].copy_from_slice(&total.to_be_bytes());
    frame[35] = 6;
    frame[38..42].copy_from_slice(&source);
    frame[42..46].copy_from_slice(&target);
    frame[58] = 0x50;
    frame
}

/// A live device that agreed on `features`: every descriptor of the receive queue a buffer, every one of the transmit
/// queue the same frame of `length` bytes.
fn device(features: u64, length: usize) -> (Transport<NetDevice<Memory>>, GuestMemoryMmap) {
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x20_0000)]).expect("map memory");
    let (guest, host) = (LINK.address.octets(), LINK.gateway.octets());
    let io = Memory {
        frame: frame(length, &LINK.mac, &LINK.gateway_mac, host, guest),
        fd: UnixDatagram::unbound().expect("open socket"),
    };
    let mut transport = Transport::new(NetDevice::new(io, &LINK), 0x1_0000).expect("make device");
    let mut write = |register: u32, value: u32| {
        transport.write(register.into(), &value.to_le_bytes(), &memory).expect("write register");
    };
    write(register::VIRTIO_MMIO_STATUS, 3);
    for (half, bits) in [(0, features & 0xffff_ffff), (1, features >> 32)] {
        write(register::VIRTIO_MMIO_DRIVER_FEATURES_SEL, half);
        write(register::VIRTIO_MMIO_DRIVER_FEATURES, u32::try_from(bits).expect("half of the features"));
    }
    write(register::VIRTIO_MMIO_STATUS, 0xb);
    for (queue, [descriptors, available, used]) in (0..).zip(QUEUES) {
        write(register::VIRTIO_MMIO_QUEUE_SEL, queue);
        write(register::VIRTIO_MMIO_QUEUE_DESC_LOW, descriptors);
        write(register::VIRTIO_MMIO_QUEUE_AVAIL_LOW, available);
        write(register::VIRTIO_MMIO_QUEUE_USED_LOW, used);
        write(register::VIRTIO_MMIO_QUEUE_READY, 1);
    }
    write(register::VIRTIO_MMIO_STATUS, 0xf);
    let sent = frame(length, &LINK.gateway_mac, &LINK.mac, guest, host);
    memory.write_slice(&sent, GuestAddress(SENT)).expect("write");
    for index in 0..QUEUE_SIZE {
        let buffer = BUFFERS + 0x800 * u64::from(index);
        let receive = [buffer, LENGTH as u64 | u64::from(VRING_DESC_F_WRITE) << 32];
        for ([descriptors, available, _], descriptor) in
            QUEUES.into_iter().zip([receive, [SENT, length as u64]])
        {
            let at = GuestAddress(u64::from(descriptors) + 16 * u64::from(index));
            memory.write_obj(descriptor, at).expect("write");
            let at = GuestAddress(u64::from(available) + 4 + 2 * u64::from(index));
            memory.write_obj(index, at).expect("write");
        }
    }
    (transport, memory)
}

/// One measurement.
struct Case {
    name: &'static str,
    queue: u16,
    features: u64,
    /// Of a frame with its header.
    length: usize,
    frames: u16,
    /// Chains that one frame takes.
    chains: u16,
    /// Chains that are available beyond those: room for the longest frame.
    spare: u16,
}

const CASES: [Case; 6] = [
    Case { name: "receive/1", queue: RX, features: PLAIN, length: LENGTH, frames: 1, chains: 1, spare: 0 },
    Case { name: "receive/64", queue: RX, features: PLAIN, length: LENGTH, frames: 64, chains: 1, spare: 0 },
    Case {
        name: "receive/60000",
        queue: RX,
        features: OFFLOADS,
        length: LONG,
        frames: 1,
        chains: 40,
        spare: 4,
    },
    Case { name: "transmit/1", queue: TX, features: PLAIN, length: LENGTH, frames: 1, chains: 1, spare: 0 },
    Case { name: "transmit/64", queue: TX, features: PLAIN, length: LENGTH, frames: 64, chains: 1, spare: 0 },
    Case {
        name: "transmit/60000",
        queue: TX,
        features: OFFLOADS,
        length: LONG,
        frames: 1,
        chains: 1,
        spare: 0,
    },
];

fn service(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("virtio_net");
    for case in CASES {
        assert!(u32::from(case.frames) <= BATCH);
        let (mut transport, memory) = device(case.features, case.length);
        let index_at = GuestAddress(u64::from(QUEUES[usize::from(case.queue)][1]) + 2);
        let mut index = case.spare;
        group.throughput(Throughput::Bytes(u64::from(case.frames) * case.length as u64));
        group.bench_function(case.name, |bencher| {
            bencher.iter(|| {
                index = index.wrapping_add(case.frames * case.chains);
                memory.write_obj(index, index_at).expect("write");
                let progress = transport.service(&memory, Instant::now()).expect("service");
                assert_eq!(progress.rx_delivered + progress.tx_completed, u32::from(case.frames));
            });
        });
        assert_eq!(transport.device().counters().tx_dropped(), 0);
    }
    group.finish();
}

criterion_group!(benches, service);
criterion_main!(benches);
