//! The heap: size classes on top of runs of pages.
//!
//! What decides here is the first touch of a page: 4 to 12 us each. So small blocks come densely from one arena
//! after another, freed blocks are reused last in, first out, and [`Heap::allocate_zeroed`] does not clear what was
//! never handed out: the VMM gave it zeroed, and a 64 KiB socket buffer costs nothing until bytes arrive.

mod classes;
mod runs;

use core::alloc::Layout;
use core::ptr;

use runs::{PAGE, Runs};

/// Small blocks are cut from runs of this size, bytes.
const ARENA: usize = 64 * 1024;

struct Free {
    next: *mut Free,
}

/// An allocator over one range of memory. Small blocks stay small: an arena is never given back to the runs.
pub struct Heap {
    runs: Runs,
    free: [*mut Free; classes::SIZES.len()],
    arena: usize,
    arena_end: usize,
    /// Everything in the arena from here on is still zero.
    arena_untouched: usize,
    used: usize,
}

impl Heap {
    /// A heap that has nothing to give.
    pub const fn empty() -> Self {
        Self {
            runs: Runs::empty(),
            free: [ptr::null_mut(); classes::SIZES.len()],
            arena: 0,
            arena_end: 0,
            arena_untouched: 0,
            used: 0,
        }
    }

    /// A heap over `start..end`.
    ///
    /// # Safety
    /// The range is zeroed, and belongs to this heap alone as long as the heap or a block from it is used.
    pub unsafe fn new(start: usize, end: usize) -> Self {
        let (start, end) = (start.next_multiple_of(PAGE), end & !(PAGE - 1));
        // SAFETY: the caller's own promise, and now page-aligned.
        Self { runs: unsafe { Runs::new(start, end.max(start)) }, ..Self::empty() }
    }

    /// Bytes handed out and not yet returned, rounding included.
    pub fn used(&self) -> usize {
        self.used
    }

    /// A block for `layout` with undefined contents; null if there is none.
    pub fn allocate(&mut self, layout: Layout) -> *mut u8 {
        self.take(layout).0
    }

    /// A block of zeroes for `layout`; null if there is none.
    pub fn allocate_zeroed(&mut self, layout: Layout) -> *mut u8 {
        let (block, used) = self.take(layout);
        if !block.is_null() {
            // SAFETY: the block is ours and at least `layout.size()` long.
            unsafe { ptr::write_bytes(block, 0, used.min(layout.size())) };
        }
        block
    }

    /// Takes `block` back.
    ///
    /// # Safety
    /// `block` came from this heap for the same `layout`, and nobody uses it any more.
    pub unsafe fn free(&mut self, block: *mut u8, layout: Layout) {
        let Some(class) = classes::of(layout) else {
            let size = layout.size().next_multiple_of(PAGE);
            self.used -= size;
            // SAFETY: the run was taken with just this size.
            return unsafe { self.runs.give_back(block as usize, size) };
        };
        self.used -= classes::SIZES[class];
        let block = block.cast::<Free>();
        // SAFETY: the block is free, at least 16 bytes long and 16-byte aligned.
        unsafe { ptr::write(block, Free { next: self.free[class] }) };
        self.free[class] = block;
    }

    /// How many bytes [`Self::discard`] would give back, at most.
    pub fn discardable(&self) -> usize {
        self.runs.discardable()
    }

    /// Calls `give` with start and length (whole pages) of each range that is free and was in use since it was last
    /// given. Such pages may have any contents afterwards: they still do not count as zero. Small blocks stay.
    pub fn discard(&mut self, give: impl FnMut(usize, usize)) {
        self.runs.discard(give);
    }

    /// Whether a block for `layout` is big enough for `size` bytes as it is.
    pub fn fits(layout: Layout, size: usize) -> bool {
        let Ok(new) = Layout::from_size_align(size, layout.align()) else { return false };
        match (classes::of(layout), classes::of(new)) {
            (Some(old), Some(new)) => old == new,
            (None, None) => layout.size().next_multiple_of(PAGE) == size.next_multiple_of(PAGE),
            _ => false,
        }
    }

    /// A block, and how many of its first bytes may be non-zero.
    fn take(&mut self, layout: Layout) -> (*mut u8, usize) {
        let (block, size) = match classes::of(layout) {
            Some(class) => (self.take_small(class), classes::SIZES[class]),
            None => {
                let Some(size) = layout.size().checked_next_multiple_of(PAGE) else {
                    return (ptr::null_mut(), 0);
                };
                (self.runs.take(size, layout.align().max(PAGE)), size)
            }
        };
        let Some((start, used)) = block else { return (ptr::null_mut(), 0) };
        self.used += size;
        (start as *mut u8, used)
    }

    fn take_small(&mut self, class: usize) -> Option<(usize, usize)> {
        let size = classes::SIZES[class];
        let head = self.free[class];
        if !head.is_null() {
            // SAFETY: blocks in the list start with an initialised `Free`.
            self.free[class] = unsafe { (*head).next };
            return Some((head as usize, size));
        }
        let mut start = self.arena.next_multiple_of(classes::alignment(size));
        if start + size > self.arena_end {
            let (arena, used) = self.runs.take(ARENA, ARENA)?;
            start = arena;
            self.arena_end = arena + ARENA;
            self.arena_untouched = arena + used;
        }
        self.arena = start + size;
        let used = self.arena_untouched.saturating_sub(start).min(size);
        Some((start, used))
    }
}

#[cfg(test)]
mod tests;
