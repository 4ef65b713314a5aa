//! The memory behind one connection's two buffers.
//!
//! Taken from the heap once and never given back to it: what the heap hands out a second time would have to be cleared
//! first, which touches every page of it. What a free connection's buffers hold is of no use to anyone, so the *host's*
//! memory behind them can go while they stay where they are.

use alloc::alloc::alloc_zeroed;
use core::alloc::Layout;
use core::ptr::NonNull;

/// Send buffer per connection, bytes: what one batch can carry.
const SEND_BUFFER: usize = 64 * 1024;
/// Receive buffer per connection, bytes.
const RECEIVE_BUFFER: usize = 32 * 1024;
const PAGE: usize = 4096;

/// Names a block; the connection that it belongs to has the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Block(usize);

impl Block {
    /// Length of a block, bytes; whole pages.
    pub(super) const SIZE: usize = SEND_BUFFER + RECEIVE_BUFFER;

    /// A block, its receive buffer and its send buffer; `None`: out of memory. No page of it is touched.
    pub(super) fn allocate() -> Option<(Self, &'static mut [u8], &'static mut [u8])> {
        let layout = Layout::from_size_align(Self::SIZE, PAGE).ok()?;
        // SAFETY: the size is not zero.
        let start = NonNull::new(unsafe { alloc_zeroed(layout) })?;
        // SAFETY: SIZE zeroed bytes that nothing else refers to and that are never freed.
        let bytes = unsafe { core::slice::from_raw_parts_mut(start.as_ptr(), Self::SIZE) };
        let (receive, send) = bytes.split_at_mut(RECEIVE_BUFFER);
        Some((Self(start.as_ptr() as usize), receive, send))
    }

    /// Address of the first byte.
    pub(super) fn start(self) -> usize {
        self.0
    }
}

/// Calls `give` with start and length of each longest range of adjacent `blocks`.
pub(super) fn ranges(blocks: &mut [Block], mut give: impl FnMut(usize, usize)) {
    blocks.sort_unstable();
    for range in blocks.chunk_by(|a, b| a.0 + Block::SIZE == b.0) {
        give(range[0].start(), range.len() * Block::SIZE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adjacent_blocks_are_one_range() {
        let block = |at: usize| Block(at * Block::SIZE);
        let mut found = Vec::new();
        ranges(&mut [block(5), block(2), block(1), block(9), block(3)], |start, length| {
            found.push((start / Block::SIZE, length / Block::SIZE));
        });
        assert_eq!(found, [(1, 3), (5, 1), (9, 1)]);
    }

    #[test]
    fn buffers_fill_their_block() {
        let (block, receive, send) = Block::allocate().unwrap();
        assert_eq!(block.start() % PAGE, 0);
        assert_eq!((receive.as_ptr() as usize, receive.len()), (block.start(), RECEIVE_BUFFER));
        assert_eq!((send.as_ptr() as usize, send.len()), (block.start() + RECEIVE_BUFFER, SEND_BUFFER));
        // SAFETY: allocated just so, and the buffers are not used again.
        unsafe {
            std::alloc::dealloc(receive.as_mut_ptr(), Layout::from_size_align(Block::SIZE, PAGE).unwrap())
        };
    }
}
