//! The memory behind one connection's two buffers.
//!
//! Taken from the heap once and never given back to it: what the heap hands out a second time would have to be cleared
//! first, which touches every page of it. What a free connection's buffers hold is of no use to anyone, so the *host's*
//! memory behind them can go while they stay where they are.

use alloc::alloc::alloc_zeroed;
use core::alloc::Layout;
use core::ops::RangeInclusive;
use core::ptr::NonNull;

/// So many connections shall fit into the memory that there is for them, before any gets more than it needs.
const CONNECTIONS: usize = 96;
/// A third of a connection's memory, bytes: at least and at most. A connection carries its send buffer's contents from
/// one PARK to the next, so more is faster, up to what one batch can carry.
const THIRD: RangeInclusive<usize> = 32 * 1024..=96 * 1024;
const PAGE: usize = 4096;

/// Lengths of a connection's buffers, bytes: whole pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sizes {
    receive: usize,
    send: usize,
}

impl Sizes {
    /// For a guest that has `memory` bytes for all connections.
    pub(super) fn new(memory: usize) -> Self {
        let third = (memory / CONNECTIONS / 3).clamp(*THIRD.start(), *THIRD.end()) & !(PAGE - 1);
        Self { receive: third, send: 2 * third }
    }

    /// Both together.
    pub(super) fn total(self) -> usize {
        self.receive + self.send
    }
}

/// Names a block; the connection that it belongs to has the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Block(usize);

impl Block {
    /// A block, its receive buffer and its send buffer; `None`: out of memory. No page of it is touched.
    pub(super) fn allocate(sizes: Sizes) -> Option<(Self, &'static mut [u8], &'static mut [u8])> {
        let layout = Layout::from_size_align(sizes.total(), PAGE).ok()?;
        // SAFETY: the size is not zero.
        let start = NonNull::new(unsafe { alloc_zeroed(layout) })?;
        // SAFETY: so many zeroed bytes that nothing else refers to and that are never freed.
        let bytes = unsafe { core::slice::from_raw_parts_mut(start.as_ptr(), sizes.total()) };
        let (receive, send) = bytes.split_at_mut(sizes.receive);
        Some((Self(start.as_ptr() as usize), receive, send))
    }

    /// Address of the first byte.
    pub(super) fn start(self) -> usize {
        self.0
    }
}

/// Calls `give` with start and length of each longest range of adjacent `blocks`, of `size` bytes each.
pub(super) fn ranges(blocks: &mut [Block], size: usize, mut give: impl FnMut(usize, usize)) {
    blocks.sort_unstable();
    for range in blocks.chunk_by(|a, b| a.0 + size == b.0) {
        give(range[0].start(), range.len() * size);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adjacent_blocks_are_one_range() {
        let mut found = Vec::new();
        ranges(&mut [5, 2, 1, 9, 3].map(|at| Block(at * 64)), 64, |start, length| {
            found.push((start / 64, length / 64));
        });
        assert_eq!(found, [(1, 3), (5, 1), (9, 1)]);
    }

    #[test]
    fn buffers_grow_with_the_memory_and_fill_their_block() {
        let kib = |memory: usize| {
            let sizes = Sizes::new(memory << 20);
            (sizes.receive / 1024, sizes.send / 1024)
        };
        assert_eq!([kib(0), kib(12), kib(24), kib(1024)], [(32, 64), (40, 80), (84, 168), (96, 192)]);
        let sizes = Sizes::new(0);
        let (block, receive, send) = Block::allocate(sizes).unwrap();
        assert_eq!(block.start() % PAGE, 0);
        assert_eq!((receive.as_ptr() as usize, receive.len()), (block.start(), sizes.receive));
        assert_eq!((send.as_ptr() as usize, send.len()), (block.start() + sizes.receive, sizes.send));
        let layout = Layout::from_size_align(sizes.total(), PAGE).unwrap();
        // SAFETY: allocated just so, and the buffers are not used again.
        unsafe { std::alloc::dealloc(receive.as_mut_ptr(), layout) };
    }
}
