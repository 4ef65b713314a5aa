//! Frames to the device.

use core::num::NonZeroU16;

use virtio_drivers::queue::VirtQueue;

use super::arena::Arena;
use super::ethernet::{Offers, Transmit};
use super::offload::{self, HEADER, Header};
use super::rings::{Identity, Memory, QUEUE_SIZE};

/// What stays of the memory when an idle guest gives it back, bytes: what small responses need.
const WARM: usize = 16 * 1024;

/// Packets to the device.
pub(crate) struct Transmitter {
    queue: VirtQueue<Identity, QUEUE_SIZE>,
    memory: Memory,
    arena: Arena,
    offers: Offers,
}

impl Transmitter {
    /// Frames of up to `largest` bytes, header included, `count` of the largest in one batch.
    pub(super) fn new(
        queue: VirtQueue<Identity, QUEUE_SIZE>,
        largest: usize,
        count: usize,
        offers: Offers,
    ) -> Self {
        let size = largest.next_multiple_of(64) * count;
        Self { queue, memory: Memory::new(size), arena: Arena::new(size, largest, QUEUE_SIZE), offers }
    }

    fn reclaim(&mut self) {
        while let Some(token) = self.queue.peek_used() {
            let Some((start, length)) = self.arena.find(token) else { return };
            // SAFETY: the device has put these bytes on the used ring, so they are ours again.
            let bytes = unsafe { &*self.memory.get(start, length) };
            // SAFETY: the very bytes that were added under this token.
            if unsafe { self.queue.pop_used(token, &[bytes], &mut []) }.is_err() {
                return;
            }
            self.arena.done(token);
        }
    }
}

impl Transmit for Transmitter {
    fn offers(&self) -> Offers {
        self.offers
    }

    fn has_room(&mut self) -> bool {
        self.reclaim();
        self.arena.has_room()
    }

    fn transmit<R>(
        &mut self,
        length: usize,
        segment: Option<NonZeroU16>,
        fill: impl FnOnce(&mut [u8]) -> R,
    ) -> R {
        let length = HEADER + length;
        let start = self.arena.place(length).expect("the caller has asked `has_room`");
        // SAFETY: the arena gives each place to one frame at a time.
        let packet = unsafe { self.memory.get(start, length) };
        let result = fill(&mut packet[HEADER..]);
        let header = match self.offers.checksum {
            true => offload::prepare(&mut packet[HEADER..], segment),
            false => Header::default(),
        };
        packet[..HEADER].copy_from_slice(&header.encode());
        // SAFETY: these bytes are touched again only after they have come back over the used ring.
        if let Ok(token) = unsafe { self.queue.add(&[packet], &mut []) } {
            self.arena.sent(token, start, length);
        }
        result
    }

    fn discardable(&mut self) -> usize {
        self.reclaim();
        self.arena.used().map_or(0, |used| used.saturating_sub(WARM))
    }

    fn discard(&mut self, give: &mut dyn FnMut(usize, usize)) {
        if self.discardable() > 0 {
            let used = self.arena.used().unwrap_or(0).next_multiple_of(virtio_drivers::PAGE_SIZE);
            give(self.memory.start() + WARM, used - WARM);
            self.arena.forget();
        }
    }
}
