//! What one call of the network device's `service` costs without the kernel: full-size frames, one and a batch of them,
//! each direction by itself.
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

/// A frame with its virtio header, bytes.
const LENGTH: usize = 12 + 1500;
/// Rings of receive and transmit queue: descriptor table, available ring, used ring.
const QUEUES: [[u32; 3]; 2] = [[0x1_0000, 0x1_2000, 0x1_4000], [0x2_0000, 0x2_2000, 0x2_4000]];
const BUFFERS: u64 = 0x4_0000;
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
    frame: [u8; LENGTH],
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
        Ok(LENGTH)
    }

    fn send(&mut self, head: &[u8], body: &[VolatileSlice<'_>]) -> io::Result<usize> {
        let (first, mut rest) = self.frame.split_at_mut(head.len());
        first.copy_from_slice(head);
        for piece in body {
            let copied = piece.copy_to(rest);
            rest = &mut rest[copied..];
        }
        Ok(LENGTH)
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A frame from one end of the link to the other.
fn frame(to: &[u8; 6], from: &[u8; 6], source: [u8; 4], target: [u8; 4]) -> [u8; LENGTH] {
    let mut frame = [0; LENGTH];
    frame[12..18].copy_from_slice(to);
    frame[18..24].copy_from_slice(from);
    frame[24..27].copy_from_slice(&[0x08, 0x00, 0x45]);
    frame[38..42].copy_from_slice(&source);
    frame[42..46].copy_from_slice(&target);
    frame
}

/// A live device, every descriptor of both queues a whole frame.
fn device() -> (Transport<NetDevice<Memory>>, GuestMemoryMmap) {
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x20_0000)]).expect("map memory");
    let (guest, host) = (LINK.address.octets(), LINK.gateway.octets());
    let io = Memory {
        frame: frame(&LINK.mac, &LINK.gateway_mac, host, guest),
        fd: UnixDatagram::unbound().expect("open socket"),
    };
    let mut transport = Transport::new(NetDevice::new(io, &LINK), 0x1_0000).expect("make device");
    let mut write = |register: u32, value: u32| {
        transport.write(register.into(), &value.to_le_bytes(), &memory).expect("write register");
    };
    write(register::VIRTIO_MMIO_STATUS, 3);
    write(register::VIRTIO_MMIO_DRIVER_FEATURES_SEL, 1);
    write(register::VIRTIO_MMIO_DRIVER_FEATURES, 1);
    write(register::VIRTIO_MMIO_STATUS, 0xb);
    for (queue, [descriptors, available, used]) in (0..).zip(QUEUES) {
        write(register::VIRTIO_MMIO_QUEUE_SEL, queue);
        write(register::VIRTIO_MMIO_QUEUE_DESC_LOW, descriptors);
        write(register::VIRTIO_MMIO_QUEUE_AVAIL_LOW, available);
        write(register::VIRTIO_MMIO_QUEUE_USED_LOW, used);
        write(register::VIRTIO_MMIO_QUEUE_READY, 1);
    }
    write(register::VIRTIO_MMIO_STATUS, 0xf);
    let sent = frame(&LINK.gateway_mac, &LINK.mac, guest, host);
    for ([descriptors, available, _], flags) in QUEUES.into_iter().zip([VRING_DESC_F_WRITE, 0]) {
        for index in 0..QUEUE_SIZE {
            let buffer = BUFFERS + 0x800 * u64::from(index) + u64::from(flags) * 0x4_0000;
            let descriptor = [buffer, LENGTH as u64 | u64::from(flags) << 32];
            memory
                .write_obj(descriptor, GuestAddress(u64::from(descriptors) + 16 * u64::from(index)))
                .expect("write");
            memory
                .write_obj(index, GuestAddress(u64::from(available) + 4 + 2 * u64::from(index)))
                .expect("write");
            memory.write_slice(&sent, GuestAddress(buffer)).expect("write");
        }
    }
    (transport, memory)
}

fn service(criterion: &mut Criterion) {
    for (name, queue) in [("receive", RX), ("transmit", TX)] {
        let mut group = criterion.benchmark_group(format!("virtio_net_{name}"));
        for frames in [1, 64u16] {
            assert!(u32::from(frames) <= BATCH);
            let (mut transport, memory) = device();
            let index_at = GuestAddress(u64::from(QUEUES[usize::from(queue)][1]) + 2);
            let mut index = 0u16;
            group.throughput(Throughput::Elements(frames.into()));
            group.bench_function(frames.to_string(), |bencher| {
                bencher.iter(|| {
                    index = index.wrapping_add(frames);
                    memory.write_obj(index, index_at).expect("write");
                    let progress = transport.service(&memory, Instant::now()).expect("service");
                    assert_eq!(progress.rx_delivered + progress.tx_completed, u32::from(frames));
                });
            });
        }
        group.finish();
    }
}

criterion_group!(benches, service);
criterion_main!(benches);
