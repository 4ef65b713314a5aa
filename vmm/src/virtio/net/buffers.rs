//! Receive buffers, taken from the ring before it is known how many of them the next frame needs.
//!
//! A TAP does not tell how long the next frame is. So chains are taken until they have room for the longest one, and a
//! frame is only read when they do: what the guest has no room for waits in the TAP, and no byte is lost. What one
//! frame leaves over serves the next; the rest goes back to the ring at the end, as if never taken.
//!
//! There is one exception. A driver that has offered its whole descriptor table will never have more room, so it gets
//! what fits, and what does not is dropped and counted.

use std::collections::VecDeque;

use virtio_queue::{Queue, QueueOwnedT, QueueT};

use super::RX;
use crate::virtio::chain::{self, Chain, Segments};
use crate::virtio::{DmaMemory, Violation};

/// With so many pieces no further chain is taken. A chain has at most as many as the queue, so that together they are
/// few enough for one `readv` (`IOV_MAX`: 1024).
const MANY_PIECES: usize = 512;

/// One chain.
#[derive(Debug)]
struct Buffer {
    head: u16,
    /// Bytes.
    length: usize,
    pieces: usize,
}

/// Chains in the order of the ring.
#[derive(Debug, Default)]
pub(super) struct Buffers<'m> {
    chain: Chain<'m>,
    memory: Segments<'m>,
    taken: VecDeque<Buffer>,
    room: usize,
}

impl<'m> Buffers<'m> {
    /// Takes chains, each of at least `least` bytes, until they have room for `wanted` bytes; a single one unless
    /// frames are `mergeable`. False if that is not enough to receive into.
    pub(super) fn gather(
        &mut self,
        queue: &mut Queue,
        memory: DmaMemory<'m>,
        mergeable: bool,
        least: usize,
        wanted: usize,
    ) -> Result<bool, Violation> {
        while self.room < wanted && self.memory.pieces() < MANY_PIECES && (mergeable || self.taken.is_empty())
        {
            if !self.chain.next(queue, RX, memory)? {
                let whole_table = self.memory.pieces() >= usize::from(queue.size());
                return Ok(!self.taken.is_empty() && whole_table);
            }
            let (head, length) = (self.chain.head, self.chain.writable.len());
            if !self.chain.readable.is_empty() {
                return Err(Violation::Direction { queue: RX, head });
            }
            if length < least {
                return Err(Violation::ChainLength { queue: RX, head, length, needed: least });
            }
            self.room += length;
            self.taken.push_back(Buffer { head, length, pieces: self.chain.writable.pieces() });
            self.memory.append(&mut self.chain.writable);
        }
        Ok(true)
    }

    /// Bytes in all chains.
    pub(super) fn room(&self) -> usize {
        self.room
    }

    /// All chains' memory.
    pub(super) fn memory(&self) -> &Segments<'m> {
        &self.memory
    }

    /// How many chains `length` bytes take.
    pub(super) fn covering(&self, length: usize) -> usize {
        let mut rest = length;
        let full = self.taken.iter().take_while(|buffer| {
            let more = rest > 0;
            rest = rest.saturating_sub(buffer.length);
            more
        });
        full.count()
    }

    /// Gives the first chains to the driver with `length` bytes received in them, all of them at once.
    pub(super) fn complete(
        &mut self,
        queue: &mut Queue,
        memory: DmaMemory<'m>,
        length: usize,
    ) -> Result<(), Violation> {
        let count = self.covering(length);
        let mut rest = length;
        let mut pieces = 0;
        let used = self.taken.drain(..count).map(|buffer| {
            let filled = rest.min(buffer.length);
            rest -= filled;
            pieces += buffer.pieces;
            self.room -= buffer.length;
            // At most the longest frame.
            (buffer.head, u32::try_from(filled).unwrap_or(u32::MAX))
        });
        chain::complete_all(queue, RX, memory, used)?;
        self.memory.remove_first(pieces);
        Ok(())
    }

    /// Gives all chains back to the ring.
    pub(super) fn put_back(&mut self, queue: &mut Queue) {
        for _ in self.taken.drain(..) {
            queue.go_to_previous_position();
        }
        self.memory = Segments::default();
        self.room = 0;
    }
}
