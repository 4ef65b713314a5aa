//! virtio-net (virtio 1.2, section 5.1): one pair of queues, on a TAP.
//!
//! Zero-copy in both directions: a frame goes between the TAP and the guest's buffers in one system call. Only its
//! head (virtio header and protocol headers) passes through our own memory: that is where the rules of [`filter`] and
//! `offload` are applied to the very bytes that are sent, and where the header that a guest wrote is replaced by one
//! with what was checked of it.
//!
//! ```text
//! transmit ring ──> transmit: filter, offload ──────> FrameIo (TAP)
//! receive ring  <── receive: buffers, filter <────────┘
//! ```
//!
//! With offloads one frame is up to 64 KiB of TCP, and one system call instead of 45. The TAP is told what the driver
//! accepted when it says DRIVER_OK, and nothing of it holds after a reset.
//!
//! Backpressure both ways: without room for the longest frame the TAP is not read; if the TAP takes nothing, frames
//! stay in the transmit ring until it does. The same for limits: what exceeds them waits where it is, see [`bucket`].

pub mod bucket;
mod buffers;
pub mod counters;
pub mod filter;
mod header;
mod io;
mod offload;
mod receive;
mod transmit;

use std::io::ErrorKind;
use std::mem::offset_of;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use virtio_bindings::virtio_ids::VIRTIO_ID_NET;
use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_MAC, VIRTIO_NET_F_MTU, VIRTIO_NET_F_STATUS, VIRTIO_NET_S_LINK_UP, virtio_net_config,
};
use virtio_queue::{Queue, QueueT};

pub use counters::NetCounters;
pub use io::FrameIo;
pub use offload::Offloads;

use super::{DeviceError, DmaMemory, Progress, VirtioDevice};
use crate::spec::NetSpec;
use bucket::Limiter;
use filter::Filter;
use offload::Agreed;

/// Index of the receive queue.
pub const RX: u16 = 0;
/// Index of the transmit queue.
pub const TX: u16 = 1;
/// Largest size of either queue, descriptors.
pub const QUEUE_SIZE: u16 = 256;
/// Most frames moved in one direction by one call of `service`, dropped ones included.
pub const BATCH: u32 = 64;
/// What is read of a frame to throw it away, bytes: the kernel wants room for its own header at least.
const DISCARD_HEAD: usize = 12;
/// More frames than a TAP ever has waiting (its txqueuelen is 500 or 1,000).
const DISCARD_MOST: u32 = 16 * 1024;

/// Size of the configuration space: `struct virtio_net_config` up to and including `mtu`.
const CONFIG: usize = offset_of!(virtio_net_config, mtu) + 2;

/// A network interface on a point-to-point link.
#[derive(Debug)]
pub struct NetDevice<I> {
    io: I,
    filter: Filter,
    config: [u8; CONFIG],
    counters: NetCounters,
    /// Whether `io` knows of offloads.
    offers_offloads: bool,
    /// What `io` was told last.
    told: Offloads,
    agreed: Agreed,
    send_limit: Limiter,
    receive_limit: Limiter,
    receiving: bool,
    send_blocked: bool,
    deadline: Option<Instant>,
}

/// How one step of a direction ended.
enum Step {
    /// A frame went on, or back to the driver.
    Done,
    /// A frame from the host was dropped; its buffers are still to be filled.
    Dropped,
    /// Nothing to do, or nothing can be done now.
    Idle,
}

impl<I: FrameIo> NetDevice<I> {
    /// The guest's interface of `spec`, on the TAP that `io` reaches. Offloads are offered if `io` takes the order to
    /// have none: a TAP does, and each that does has had those offered here since Linux 2.6.27.
    pub fn new(mut io: I, spec: &NetSpec) -> Self {
        Self {
            offers_offloads: io.set_offloads(Offloads::NONE).is_ok(),
            told: Offloads::NONE,
            agreed: Agreed::default(),
            io,
            filter: Filter::new(spec),
            config: config_space(spec),
            counters: NetCounters::default(),
            send_limit: Limiter::new(spec.limits.send),
            receive_limit: Limiter::new(spec.limits.receive),
            receiving: false,
            send_blocked: false,
            deadline: None,
        }
    }

    /// What went through so far.
    pub fn counters(&self) -> &NetCounters {
        &self.counters
    }

    /// A limit keeps something waiting: `wait` from `now`. Longer than the clock can express is for ever.
    fn delay(&mut self, now: Instant, wait: Duration) {
        let until = now.checked_add(wait);
        self.deadline = self.deadline.into_iter().chain(until).min();
    }

    fn set_offloads(&mut self, offloads: Offloads) -> Result<(), DeviceError> {
        if self.told != offloads {
            self.io.set_offloads(offloads).map_err(DeviceError::Offloads)?;
            self.told = offloads;
        }
        Ok(())
    }
}

impl<I: FrameIo> VirtioDevice for NetDevice<I> {
    fn device_id(&self) -> u32 {
        VIRTIO_ID_NET
    }

    fn features(&self) -> u64 {
        let offloads = if self.offers_offloads { Agreed::OFFLOADS } else { 0 };
        let always = 1 << VIRTIO_NET_F_MAC | 1 << VIRTIO_NET_F_STATUS | 1 << VIRTIO_NET_F_MTU;
        always | Agreed::MERGEABLE | offloads
    }

    fn accepts(&self, features: u64) -> bool {
        Agreed::on(features).consistent()
    }

    fn queue_sizes(&self) -> &'static [u16] {
        &[QUEUE_SIZE, QUEUE_SIZE]
    }

    fn config(&self) -> &[u8] {
        &self.config
    }

    fn activate(&mut self, features: u64) -> Result<(), DeviceError> {
        self.agreed = Agreed::on(features);
        self.receiving = false;
        self.send_blocked = false;
        self.deadline = None;
        self.set_offloads(self.agreed.receive)
    }

    fn reset(&mut self) -> Result<(), DeviceError> {
        self.activate(0)
    }

    fn discard(&mut self) {
        // The rest of each frame is cut off; of what is read nothing is kept.
        let mut head = [0; DISCARD_HEAD];
        for _ in 0..DISCARD_MOST {
            match self.io.receive(&mut head, &[]) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => break,
                Ok(_) => {}
            }
        }
    }

    fn service(
        &mut self,
        queues: &mut [Queue],
        memory: DmaMemory<'_>,
        now: Instant,
    ) -> Result<Progress, DeviceError> {
        let [rx, tx] = queues else { return Ok(Progress::default()) };
        let mut progress = Progress::default();
        self.send_blocked = false;
        self.receiving = false;
        self.deadline = None;
        if tx.ready() {
            self.send_batch(tx, memory, now, &mut progress)?;
        }
        if rx.ready() {
            self.receive_batch(rx, memory, now, &mut progress)?;
        }
        progress.wake =
            progress.rx_delivered > 0 || progress.tx_completed > 0 && transmit::wants_completions(tx, memory);
        Ok(progress)
    }

    fn deadline(&self) -> Option<Instant> {
        self.deadline
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
