//! virtio-net (virtio 1.2, section 5.1): one pair of queues, no offloads.
//!
//! Zero-copy in both directions: a frame goes between the TAP and the guest's buffers in one system call. Only its
//! head (virtio header and protocol headers) passes through our own memory: that is where the rules of [`filter`] are
//! applied to the very bytes that are sent, and where the header that a guest wrote is replaced by zeros, so that it
//! cannot ask the host's kernel for segmentation or checksums.
//!
//! Backpressure both ways: without a receive buffer the TAP is not read; if the TAP takes nothing, frames stay in the
//! transmit ring until it does.

pub mod counters;
pub mod filter;
mod io;

use std::io::ErrorKind;
use std::mem::offset_of;
use std::os::fd::BorrowedFd;
use std::sync::atomic::Ordering;

use virtio_bindings::virtio_ids::VIRTIO_ID_NET;
use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_MAC, VIRTIO_NET_F_MTU, VIRTIO_NET_F_STATUS, VIRTIO_NET_S_LINK_UP, virtio_net_config,
    virtio_net_hdr_v1,
};
use virtio_bindings::virtio_ring::VRING_AVAIL_F_NO_INTERRUPT;
use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress};

pub use counters::NetCounters;
pub use io::FrameIo;

use super::chain::{Chain, Segments};
use super::{DeviceError, DmaMemory, Progress, Violation, VirtioDevice};
use crate::spec::NetSpec;
use filter::{ETHERNET_HEADER, Filter, IPV4_HEADER};

/// Index of the receive queue.
pub const RX: u16 = 0;
/// Index of the transmit queue.
pub const TX: u16 = 1;
/// Largest size of either queue, descriptors.
pub const QUEUE_SIZE: u16 = 256;
/// Most frames moved in one direction by one call of `service`, dropped ones included.
pub const BATCH: u32 = 64;

/// Size of `struct virtio_net_hdr_v1`, which precedes every frame on the rings and on the TAP.
const HEADER: usize = size_of::<virtio_net_hdr_v1>();
/// Offset of its `num_buffers`.
const NUM_BUFFERS: usize = offset_of!(virtio_net_hdr_v1, num_buffers);
/// Size of the configuration space: `struct virtio_net_config` up to and including `mtu`.
const CONFIG: usize = offset_of!(virtio_net_config, mtu) + 2;
/// What of a sent frame goes through our own memory.
const TX_HEAD: usize = HEADER + ETHERNET_HEADER + IPV4_HEADER;
/// What of a received frame goes through our own memory.
const RX_HEAD: usize = HEADER + ETHERNET_HEADER;

/// A network interface on a point-to-point link.
#[derive(Debug)]
pub struct NetDevice<I> {
    io: I,
    filter: Filter,
    config: [u8; CONFIG],
    counters: NetCounters,
    receiving: bool,
    send_blocked: bool,
}

/// How one step of a direction ended.
enum Step {
    /// A chain was returned to the driver.
    Done,
    /// A frame from the host was dropped; its chain is still to be filled.
    Dropped,
    /// Nothing to do, or nothing can be done now.
    Idle,
}

impl<I: FrameIo> NetDevice<I> {
    /// The guest's interface of `spec`, on the TAP that `io` reaches.
    pub fn new(io: I, spec: &NetSpec) -> Self {
        Self {
            io,
            filter: Filter::new(spec),
            config: config_space(spec),
            counters: NetCounters::default(),
            receiving: false,
            send_blocked: false,
        }
    }

    /// What went through so far.
    pub fn counters(&self) -> &NetCounters {
        &self.counters
    }

    /// Takes at most one frame from the transmit ring.
    fn send<'m>(
        &mut self,
        queue: &mut Queue,
        chain: &mut Chain<'m>,
        body: &mut Segments<'m>,
        memory: DmaMemory<'m>,
    ) -> Result<Step, DeviceError> {
        if !chain.next(queue, TX, memory)? {
            return Ok(Step::Idle);
        }
        if !chain.writable.is_empty() {
            return Err(Violation::Direction { queue: TX, head: chain.head }.into());
        }
        let total = chain.readable.len();
        let Some(length) = total.checked_sub(HEADER) else {
            return Err(too_short(TX, chain.head, total, HEADER));
        };
        let mut head = [0; TX_HEAD];
        chain.readable.read_prefix(&mut head);
        head[..HEADER].fill(0);
        if let Err(reason) = self.filter.check_sent(&head[HEADER..], length) {
            self.counters.drop_sent(reason);
        } else {
            body.assign(&chain.readable, TX_HEAD..total);
            match self.io.send(&head, body.as_slice()) {
                Ok(_) => self.counters.sent(length),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                    queue.go_to_previous_position();
                    self.send_blocked = true;
                    return Ok(Step::Idle);
                }
                Err(_) => self.counters.tx_dropped_host += 1,
            }
        }
        chain.complete(queue, TX, memory, 0)?;
        Ok(Step::Done)
    }

    /// Puts at most one frame into the receive ring.
    fn receive<'m>(
        &mut self,
        queue: &mut Queue,
        chain: &mut Chain<'m>,
        body: &mut Segments<'m>,
        memory: DmaMemory<'m>,
    ) -> Result<Step, DeviceError> {
        self.receiving = chain.next(queue, RX, memory)?;
        if !self.receiving {
            return Ok(Step::Idle);
        }
        if !chain.readable.is_empty() {
            return Err(Violation::Direction { queue: RX, head: chain.head }.into());
        }
        let capacity = chain.writable.len();
        if capacity < RX_HEAD {
            return Err(too_short(RX, chain.head, capacity, RX_HEAD));
        }
        let usable = capacity.min(HEADER + self.filter.longest_frame());
        body.assign(&chain.writable, RX_HEAD..usable);
        let mut head = [0; RX_HEAD];
        let received = match self.io.receive(&mut head, body.as_slice()) {
            Ok(received) => received,
            Err(error) => {
                queue.go_to_previous_position();
                return match error.kind() {
                    ErrorKind::WouldBlock | ErrorKind::Interrupted => Ok(Step::Idle),
                    _ => Err(DeviceError::Receive(error)),
                };
            }
        };
        if received > usable {
            self.counters.rx_dropped_length += 1;
        } else if received < RX_HEAD || !self.filter.is_for_guest(&head[HEADER..]) {
            self.counters.rx_dropped_foreign += 1;
        } else {
            head[..HEADER].fill(0);
            head[NUM_BUFFERS..NUM_BUFFERS + 2].copy_from_slice(&1u16.to_le_bytes());
            chain.writable.write_prefix(&head);
            self.counters.received(received - HEADER);
            // At most header and longest frame, so well below 2^32.
            chain.complete(queue, RX, memory, u32::try_from(received).unwrap_or(u32::MAX))?;
            return Ok(Step::Done);
        }
        queue.go_to_previous_position();
        Ok(Step::Dropped)
    }
}

impl<I: FrameIo> VirtioDevice for NetDevice<I> {
    fn device_id(&self) -> u32 {
        VIRTIO_ID_NET
    }

    fn features(&self) -> u64 {
        1 << VIRTIO_NET_F_MAC | 1 << VIRTIO_NET_F_STATUS | 1 << VIRTIO_NET_F_MTU
    }

    fn queue_sizes(&self) -> &'static [u16] {
        &[QUEUE_SIZE, QUEUE_SIZE]
    }

    fn config(&self) -> &[u8] {
        &self.config
    }

    fn activate(&mut self, _features: u64) {}

    fn reset(&mut self) {
        self.receiving = false;
        self.send_blocked = false;
    }

    fn service(&mut self, queues: &mut [Queue], memory: DmaMemory<'_>) -> Result<Progress, DeviceError> {
        let [rx, tx] = queues else { return Ok(Progress::default()) };
        let (mut chain, mut body) = (Chain::default(), Segments::default());
        let mut progress = Progress::default();
        self.send_blocked = false;
        self.receiving = false;
        if tx.ready() {
            let mut steps = 0;
            while steps < BATCH && matches!(self.send(tx, &mut chain, &mut body, memory)?, Step::Done) {
                steps += 1;
            }
            progress.tx_completed = steps;
            progress.more |= steps == BATCH;
        }
        if rx.ready() {
            let mut steps = 0;
            while steps < BATCH {
                match self.receive(rx, &mut chain, &mut body, memory)? {
                    Step::Done => progress.rx_delivered += 1,
                    Step::Dropped => {}
                    Step::Idle => break,
                }
                steps += 1;
            }
            progress.more |= steps == BATCH;
        }
        progress.wake =
            progress.rx_delivered > 0 || progress.tx_completed > 0 && wants_completions(tx, memory);
        Ok(progress)
    }

    fn readable_fd(&self) -> Option<BorrowedFd<'_>> {
        self.receiving.then(|| self.io.fd())
    }

    fn writable_fd(&self) -> Option<BorrowedFd<'_>> {
        self.send_blocked.then(|| self.io.fd())
    }
}

/// The configuration space: address, a link that is up, and the MTU.
fn config_space(spec: &NetSpec) -> [u8; CONFIG] {
    let mut config = [0; CONFIG];
    let mut put = |offset: usize, bytes: &[u8]| config[offset..offset + bytes.len()].copy_from_slice(bytes);
    put(offset_of!(virtio_net_config, mac), &spec.mac);
    put(offset_of!(virtio_net_config, status), &VIRTIO_NET_S_LINK_UP.to_le_bytes()[..2]);
    put(offset_of!(virtio_net_config, mtu), &spec.mtu.to_le_bytes());
    config
}

/// The driver did not say that it can do without being told of used buffers.
fn wants_completions(queue: &Queue, memory: DmaMemory<'_>) -> bool {
    let flags = memory.memory().load::<u16>(GuestAddress(queue.avail_ring()), Ordering::Relaxed);
    flags.is_ok_and(|flags| u32::from(u16::from_le(flags)) & VRING_AVAIL_F_NO_INTERRUPT == 0)
}

fn too_short(queue: u16, head: u16, length: usize, needed: usize) -> DeviceError {
    Violation::ChainLength { queue, head, length, needed }.into()
}
