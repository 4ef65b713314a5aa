//! From the guest to the host.

use std::io::ErrorKind;
use std::sync::atomic::Ordering;
use std::time::Instant;

use virtio_bindings::virtio_ring::VRING_AVAIL_F_NO_INTERRUPT;
use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress};

use super::filter::{ETHERNET_HEADER, Rejection};
use super::header::{HEADER, Header};
use super::offload::{self, LONGEST_HEADERS, LONGEST_SEGMENTED};
use super::{BATCH, FrameIo, NetDevice, Step, TX};
use crate::virtio::chain::{Chain, Segments};
use crate::virtio::{DeviceError, DmaMemory, Progress, Violation};

/// What of a sent frame goes through our own memory.
const HEAD: usize = HEADER + ETHERNET_HEADER + LONGEST_HEADERS;

impl<I: FrameIo> NetDevice<I> {
    /// Sends what is in the transmit ring, up to a bound.
    pub(super) fn send_batch(
        &mut self,
        queue: &mut Queue,
        memory: DmaMemory<'_>,
        now: Instant,
        progress: &mut Progress,
    ) -> Result<(), DeviceError> {
        let (mut chain, mut body) = (Chain::default(), Segments::default());
        let mut steps = 0;
        while steps < BATCH && matches!(self.send(queue, &mut chain, &mut body, memory, now)?, Step::Done) {
            steps += 1;
        }
        progress.tx_completed = steps;
        progress.more |= steps == BATCH;
        Ok(())
    }

    /// Takes at most one frame from the transmit ring.
    fn send<'m>(
        &mut self,
        queue: &mut Queue,
        chain: &mut Chain<'m>,
        body: &mut Segments<'m>,
        memory: DmaMemory<'m>,
        now: Instant,
    ) -> Result<Step, DeviceError> {
        if !chain.next(queue, TX, memory)? {
            return Ok(Step::Idle);
        }
        if let Some(wait) = self.send_limit.wait(now) {
            queue.go_to_previous_position();
            self.delay(now, wait);
            return Ok(Step::Idle);
        }
        let (head, total) = (chain.head, chain.readable.len());
        if !chain.writable.is_empty() {
            return Err(Violation::Direction { queue: TX, head }.into());
        }
        let Some(length) = total.checked_sub(HEADER) else {
            return Err(Violation::ChainLength { queue: TX, head, length: total, needed: HEADER }.into());
        };
        let mut bytes = [0; HEAD];
        let bytes = &mut bytes[..total.min(HEAD)];
        chain.readable.read_prefix(bytes);
        match self.check(bytes, length) {
            Err(reason) => self.counters.drop_sent(reason),
            Ok(header) => {
                bytes[..HEADER].copy_from_slice(&header.bytes());
                body.assign(&chain.readable, bytes.len()..total);
                match self.io.send(bytes, body.as_slice()) {
                    Ok(_) => {
                        self.counters.sent(length);
                        self.send_limit.take(length, offload::packets(&header, length));
                    }
                    Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                        queue.go_to_previous_position();
                        self.send_blocked = true;
                        return Ok(Step::Idle);
                    }
                    Err(_) => self.counters.tx_dropped_host += 1,
                }
            }
        }
        chain.complete(queue, TX, memory, 0)?;
        Ok(Step::Done)
    }

    /// The header with which the frame of `length` bytes, that begins as `bytes` do, may be sent.
    fn check(&self, bytes: &[u8], length: usize) -> Result<Header, Rejection> {
        let (header, frame) = bytes.split_first_chunk().ok_or(Rejection::Length)?;
        let asked = Header::parse(header);
        let segmented = offload::is_segmented(&asked) && self.agreed.send.tcp4;
        let longest = if segmented { LONGEST_SEGMENTED } else { self.filter.longest_frame() };
        self.filter.check_sent(frame, length, longest)?;
        offload::check_sent(&asked, frame, length, self.agreed.send, self.filter.mtu())
    }
}

/// The driver did not say that it can do without being told of used buffers.
pub(super) fn wants_completions(queue: &Queue, memory: DmaMemory<'_>) -> bool {
    let flags = memory.memory().load::<u16>(GuestAddress(queue.avail_ring()), Ordering::Relaxed);
    flags.is_ok_and(|flags| u32::from(u16::from_le(flags)) & VRING_AVAIL_F_NO_INTERRUPT == 0)
}
