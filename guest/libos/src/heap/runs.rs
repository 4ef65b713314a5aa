//! Runs of pages: a frontier that grows upwards, and below it an address-ordered list of free runs that are merged
//! with their neighbours, the frontier included.
//!
//! Each knows how many of its bytes were in use since it was last discarded, at most: a part of a run inherits all of
//! it that fits. The first page of a run holds its place in the list, and is never discarded.

use core::ptr;

/// Granularity of runs, bytes.
pub(super) const PAGE: usize = 4096;

/// Stands at the start of each free run.
struct Free {
    size: usize,
    /// Bytes that are worth discarding, at most.
    dirty: usize,
    next: *mut Free,
}

/// The pages of the heap.
pub(super) struct Runs {
    free: *mut Free,
    frontier: usize,
    /// Everything from here on was never handed out: it still is as zero as the VMM made it.
    untouched: usize,
    /// Bytes between the frontier and `untouched` that are worth discarding, at most.
    dirty: usize,
    end: usize,
}

impl Runs {
    pub(super) const fn empty() -> Self {
        Self { free: ptr::null_mut(), frontier: 0, untouched: 0, dirty: 0, end: 0 }
    }

    /// # Safety
    /// `start..end` is page-aligned, zeroed, and belongs to this value alone from now on.
    pub(super) const unsafe fn new(start: usize, end: usize) -> Self {
        Self { free: ptr::null_mut(), frontier: start, untouched: start, dirty: 0, end }
    }

    /// Takes `size` bytes (a multiple of a page) aligned to `align` (a page or more). Returns the address and how
    /// many of the first bytes may be non-zero.
    pub(super) fn take(&mut self, size: usize, align: usize) -> Option<(usize, usize)> {
        self.take_free(size, align).map(|start| (start, size)).or_else(|| self.take_frontier(size, align))
    }

    fn take_free(&mut self, size: usize, align: usize) -> Option<usize> {
        let mut link: *mut *mut Free = &mut self.free;
        loop {
            // SAFETY: `link` is `self.free` or the `next` of a run in the list, and the list is ours alone.
            let run = unsafe { *link };
            if run.is_null() {
                return None;
            }
            // SAFETY: runs in the list start with an initialised `Free`.
            let Free { size: run_size, dirty, next } = unsafe { ptr::read(run) };
            let run_start = run as usize;
            let run_end = run_start + run_size;
            let start = run_start.next_multiple_of(align);
            if start.checked_add(size).is_some_and(|end| end <= run_end) {
                // SAFETY: as above; unlinks the run.
                unsafe { *link = next };
                // SAFETY: the parts of the run before and behind the block are free and ours.
                unsafe { self.insert(run_start, start - run_start, dirty) };
                // SAFETY: as above.
                unsafe { self.insert(start + size, run_end - start - size, dirty) };
                return Some(start);
            }
            // SAFETY: `run` is in the list and stays where it is.
            link = unsafe { &raw mut (*run).next };
        }
    }

    fn take_frontier(&mut self, size: usize, align: usize) -> Option<(usize, usize)> {
        let old = self.frontier;
        let start = old.checked_next_multiple_of(align)?;
        let end = start.checked_add(size).filter(|end| *end <= self.end)?;
        let used = self.untouched.saturating_sub(start).min(size);
        self.frontier = end;
        let gap_dirty = self.dirty;
        self.untouched = self.untouched.max(end);
        self.dirty = self.dirty.min(self.untouched - end);
        // SAFETY: the gap that alignment left lies below the new frontier and belongs to nobody.
        unsafe { self.insert(old, start - old, gap_dirty) };
        Some((start, used))
    }

    /// # Safety
    /// `start..start + size` is page-aligned, was taken from here, and nobody uses it any more.
    pub(super) unsafe fn give_back(&mut self, start: usize, size: usize) {
        // SAFETY: the caller's own promise.
        unsafe { self.insert(start, size, size) };
    }

    /// How many bytes [`Self::discard`] would give back, at most.
    pub(super) fn discardable(&self) -> usize {
        let mut total = self.dirty;
        let mut next = self.free;
        while !next.is_null() {
            // SAFETY: runs in the list start with an initialised `Free`, and the list is ours alone.
            let run = unsafe { ptr::read(next) };
            total += run.dirty;
            next = run.next;
        }
        total
    }

    /// Calls `give` with start and length of each range that is free and was in use since it was last given.
    pub(super) fn discard(&mut self, mut give: impl FnMut(usize, usize)) {
        let mut next = self.free;
        while !next.is_null() {
            // SAFETY: as in `discardable`; no other reference to it exists.
            let run = unsafe { &mut *next };
            if core::mem::take(&mut run.dirty) > 0 && run.size > PAGE {
                give(next as usize + PAGE, run.size - PAGE);
            }
            next = run.next;
        }
        if core::mem::take(&mut self.dirty) > 0 {
            give(self.frontier, self.untouched - self.frontier);
        }
    }

    /// # Safety
    /// As [`Self::give_back`].
    unsafe fn insert(&mut self, start: usize, size: usize, dirty: usize) {
        if size == 0 {
            return;
        }
        let (mut start, mut size, mut dirty) = (start, size, dirty.min(size));
        let mut link: *mut *mut Free = &mut self.free;
        // SAFETY: `link` walks from `self.free` over the `next` fields of runs in the list, all initialised.
        let mut next = unsafe { *link };
        while !next.is_null() && (next as usize) < start {
            // SAFETY: `next` is a run in the list.
            let run = unsafe { ptr::read(next) };
            if next as usize + run.size == start {
                start = next as usize;
                size += run.size;
                dirty += run.dirty;
                // SAFETY: unlinks the run, which is now part of ours.
                unsafe { *link = run.next };
            } else {
                // SAFETY: as above.
                link = unsafe { &raw mut (*next).next };
            }
            next = run.next;
        }
        if !next.is_null() && start + size == next as usize {
            // SAFETY: `next` is a run in the list.
            let run = unsafe { ptr::read(next) };
            size += run.size;
            dirty += run.dirty;
            next = run.next;
        }
        if start + size == self.frontier {
            self.frontier = start;
            self.dirty += dirty;
            // SAFETY: `link` is the last link: nothing is free behind the frontier.
            unsafe { *link = ptr::null_mut() };
            return;
        }
        let run = start as *mut Free;
        // SAFETY: the caller gave us these pages; a page holds a `Free`.
        unsafe { ptr::write(run, Free { size, dirty, next }) };
        // SAFETY: as above.
        unsafe { *link = run };
    }
}
