//! From the host to the guest.

use std::io::ErrorKind;
use std::time::Instant;

use virtio_queue::Queue;

use super::buffers::Buffers;
use super::filter::ETHERNET_HEADER;
use super::header::{HEADER, Header};
use super::offload::{self, LONGEST_RECEIVED};
use super::{BATCH, FrameIo, NetDevice, Step};
use crate::virtio::chain::Segments;
use crate::virtio::{DeviceError, DmaMemory, Progress};

/// What of a received frame goes through our own memory.
const HEAD: usize = HEADER + ETHERNET_HEADER;

impl<I: FrameIo> NetDevice<I> {
    /// Fills the receive ring with what the host has, up to a bound.
    pub(super) fn receive_batch(
        &mut self,
        queue: &mut Queue,
        memory: DmaMemory<'_>,
        now: Instant,
        progress: &mut Progress,
    ) -> Result<(), DeviceError> {
        let (mut buffers, mut body) = (Buffers::default(), Segments::default());
        let mut steps = 0;
        while steps < BATCH {
            match self.receive(queue, &mut buffers, &mut body, memory, now)? {
                Step::Done => progress.rx_delivered += 1,
                Step::Dropped => {}
                Step::Idle => break,
            }
            steps += 1;
        }
        buffers.put_back(queue);
        progress.more |= steps == BATCH;
        Ok(())
    }

    /// Puts at most one frame into the receive ring.
    fn receive<'m>(
        &mut self,
        queue: &mut Queue,
        buffers: &mut Buffers<'m>,
        body: &mut Segments<'m>,
        memory: DmaMemory<'m>,
        now: Instant,
    ) -> Result<Step, DeviceError> {
        let wanted = HEADER + self.longest_received();
        let mergeable = self.agreed.mergeable;
        let least = if mergeable { HEADER } else { HEAD };
        self.receiving = buffers.gather(queue, memory, mergeable, least, wanted)? && buffers.room() >= HEAD;
        if !self.receiving {
            return Ok(Step::Idle);
        }
        if let Some(wait) = self.receive_limit.wait(now) {
            self.receiving = false;
            self.delay(now, wait);
            return Ok(Step::Idle);
        }
        let usable = buffers.room().min(wanted);
        body.assign(buffers.memory(), HEAD..usable);
        let mut head = [0; HEAD];
        let received = match self.io.receive(&mut head, body.as_slice()) {
            Ok(received) => received,
            Err(error) => {
                return match error.kind() {
                    ErrorKind::WouldBlock | ErrorKind::Interrupted => Ok(Step::Idle),
                    _ => Err(DeviceError::Receive(error)),
                };
            }
        };
        let (header, ethernet) = head.split_first_chunk_mut().expect("a head is longer than a header");
        if received > usable {
            self.counters.rx_dropped_length += 1;
        } else if received < HEAD || !self.filter.is_for_guest(ethernet) {
            self.counters.rx_dropped_foreign += 1;
        } else if let Some(told) = self.tell(&Header::parse(header), received - HEADER) {
            // At most one chain per descriptor.
            let count = u16::try_from(buffers.covering(received)).unwrap_or(u16::MAX);
            *header = Header { buffers: count, ..told }.bytes();
            buffers.memory().write_prefix(&head);
            let length = received - HEADER;
            self.counters.received(length);
            self.receive_limit.take(length, offload::packets(&told, length));
            buffers.complete(queue, memory, received)?;
            return Ok(Step::Done);
        }
        Ok(Step::Dropped)
    }

    /// What to tell the guest of a frame of `length` bytes, if it may have it.
    fn tell(&mut self, header: &Header, length: usize) -> Option<Header> {
        let told = offload::check_received(header, self.agreed.receive);
        if told.is_none() {
            self.counters.rx_dropped_offload += 1;
        } else if length > self.filter.longest_frame() && !offload::is_segmented(header) {
            self.counters.rx_dropped_length += 1;
            return None;
        }
        told
    }

    /// The longest frame that the guest has agreed to, bytes.
    fn longest_received(&self) -> usize {
        if self.agreed.receive.tcp4 { LONGEST_RECEIVED } else { self.filter.longest_frame() }
    }
}
