//! One descriptor chain, checked.
//!
//! `virtio_queue::DescriptorChain` ends silently where a chain is broken and follows indirect tables whether offered
//! or not. Here a broken chain must be told from a short one, so this walks the table itself: each descriptor is read
//! exactly once, and the walk ends after as many steps as the table has entries.

use std::ops::Range;
use std::sync::atomic::Ordering;

use virtio_queue::desc::split::Descriptor;
use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress, VolatileSlice};

use super::{DmaMemory, Violation};

/// Offsets in a used ring of its index and its elements (virtio 1.2, section 2.7.8), bytes.
const USED_INDEX: u64 = 2;
const USED_RING: u64 = 4;

/// A sequence of pieces of guest memory, read or written as one.
#[derive(Debug, Default)]
pub struct Segments<'m>(Vec<VolatileSlice<'m>>);

impl<'m> Segments<'m> {
    /// Total length, bytes.
    pub fn len(&self) -> usize {
        self.0.iter().map(VolatileSlice::len).sum()
    }

    /// Whether there is not one byte.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The pieces.
    pub fn as_slice(&self) -> &[VolatileSlice<'m>] {
        &self.0
    }

    /// Number of pieces.
    pub fn pieces(&self) -> usize {
        self.0.len()
    }

    /// Moves all pieces of `other` behind these.
    pub fn append(&mut self, other: &mut Self) {
        self.0.append(&mut other.0);
    }

    /// Removes the first `pieces`.
    pub fn remove_first(&mut self, pieces: usize) {
        self.0.drain(..pieces.min(self.0.len()));
    }

    /// Copies the first bytes into `bytes`, as many as there are of both.
    pub fn read_prefix(&self, bytes: &mut [u8]) {
        let mut rest = bytes;
        for piece in &self.0 {
            let copied = piece.copy_to(rest);
            rest = &mut rest[copied..];
        }
    }

    /// Copies `bytes` over the first bytes, as many as there are of both.
    pub fn write_prefix(&self, bytes: &[u8]) {
        let mut rest = bytes;
        for piece in &self.0 {
            let (now, later) = rest.split_at(piece.len().min(rest.len()));
            piece.copy_from(now);
            rest = later;
        }
    }

    /// Becomes the part of `other` that `range` covers, in bytes.
    pub fn assign(&mut self, other: &Self, range: Range<usize>) {
        self.0.clear();
        let mut start = 0;
        for piece in &other.0 {
            let end = start + piece.len();
            let (from, to) = (range.start.max(start), range.end.min(end));
            if from < to {
                let part = piece.subslice(from - start, to - from).expect("part of the piece");
                self.0.push(part);
            }
            start = end;
        }
    }
}

/// The buffers of one chain: first what the device reads, then what it writes.
#[derive(Debug, Default)]
pub struct Chain<'m> {
    /// Index of the first descriptor, which is the name of the chain in the rings.
    pub head: u16,
    /// What the driver wrote for the device.
    pub readable: Segments<'m>,
    /// What the device may fill.
    pub writable: Segments<'m>,
}

impl<'m> Chain<'m> {
    /// Becomes the next available chain of `queue` (number `index` of its device); false if there is none.
    ///
    /// # Errors
    /// If the guest broke the ring protocol.
    pub fn next(&mut self, queue: &mut Queue, index: u16, memory: DmaMemory<'m>) -> Result<bool, Violation> {
        let mut available = queue.iter(memory.memory()).map_err(|error| match error {
            virtio_queue::Error::InvalidAvailRingIndex => Violation::AvailableIndex { queue: index },
            _ => Violation::Ring { queue: index },
        })?;
        let Some(head) = available.next().map(|chain| chain.head_index()) else { return Ok(false) };
        self.walk(queue, index, memory, head)?;
        Ok(true)
    }

    fn walk(&mut self, queue: &Queue, index: u16, memory: DmaMemory<'m>, head: u16) -> Result<(), Violation> {
        self.head = head;
        self.readable.0.clear();
        self.writable.0.clear();
        let (mut next, mut writing) = (head, false);
        for _ in 0..queue.size() {
            if next >= queue.size() {
                return Err(Violation::DescriptorIndex { queue: index, index: next });
            }
            let descriptor = read_descriptor(queue, memory, next).ok_or(Violation::Ring { queue: index })?;
            if descriptor.refers_to_indirect_table() {
                return Err(Violation::IndirectDescriptor { queue: index, index: next });
            }
            if writing && !descriptor.is_write_only() {
                return Err(Violation::Direction { queue: index, head });
            }
            writing = descriptor.is_write_only();
            let segments = if writing { &mut self.writable } else { &mut self.readable };
            let (address, length) = (descriptor.addr().0, descriptor.len());
            if !memory.append(address, length, &mut segments.0) {
                return Err(Violation::Buffer { queue: index, address, length });
            }
            if !descriptor.has_next() {
                return Ok(());
            }
            next = descriptor.next();
        }
        Err(Violation::DescriptorLoop { queue: index, head })
    }

    /// Gives this chain back to the driver, `written` bytes of its writable part filled.
    ///
    /// # Errors
    /// If the used ring cannot be written.
    pub fn complete(
        &self,
        queue: &mut Queue,
        index: u16,
        memory: DmaMemory<'m>,
        written: u32,
    ) -> Result<(), Violation> {
        queue.add_used(memory.memory(), self.head, written).map_err(|_| Violation::Ring { queue: index })
    }
}

/// Gives chains back to the driver, all of them at once: it sees either none or all. Of each there is the head, and how
/// many bytes of its writable part are filled.
///
/// # Errors
/// If the used ring cannot be written.
pub fn complete_all(
    queue: &mut Queue,
    index: u16,
    memory: DmaMemory<'_>,
    chains: impl Iterator<Item = (u16, u32)>,
) -> Result<(), Violation> {
    let ring = queue.used_ring();
    let at = |offset: u64| ring.checked_add(offset).map(GuestAddress).ok_or(Violation::Ring { queue: index });
    let mut next = queue.next_used();
    for (head, written) in chains {
        let element = [u32::from(head).to_le(), written.to_le()];
        let slot = u64::from(next % queue.size());
        let address = at(USED_RING + slot * size_of_val(&element) as u64)?;
        memory.memory().write_obj(element, address).map_err(|_| Violation::Ring { queue: index })?;
        next = next.wrapping_add(1);
    }
    // Release: whoever sees the index sees the elements.
    memory
        .memory()
        .store(next.to_le(), at(USED_INDEX)?, Ordering::Release)
        .map_err(|_| Violation::Ring { queue: index })?;
    queue.set_next_used(next);
    Ok(())
}

fn read_descriptor(queue: &Queue, memory: DmaMemory<'_>, index: u16) -> Option<Descriptor> {
    let offset = u64::from(index) * size_of::<Descriptor>() as u64;
    memory.memory().read_obj(GuestAddress(queue.desc_table().checked_add(offset)?)).ok()
}
