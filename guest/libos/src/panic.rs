//! The two things that a binary without a standard library must bring: a global allocator and a panic handler; and
//! the log.

use core::cell::RefCell;
use core::fmt::Write;

use weir_abi::boot::Region;
use weir_abi::control::LOG_MAX;

use crate::control;
use crate::heap::Heap;
use crate::text::Text;

struct Global(RefCell<Heap>);

// SAFETY: used in images only, which have one thread; `Heap` calls nothing that could come back here.
unsafe impl Sync for Global {}

#[cfg_attr(weir_guest, global_allocator)]
static HEAP: Global = Global(RefCell::new(Heap::empty()));

/// Gives the heap its memory; called once, at boot.
pub(crate) fn init_heap(region: Region) {
    let [start, end] = [region.start, region.end].map(|address| usize::try_from(address).unwrap_or(0));
    // SAFETY: boot-info gives this zeroed range to the guest, and nothing else refers to it.
    *HEAP.0.borrow_mut() = unsafe { Heap::new(start, end) };
}

pub(crate) fn heap_used() -> usize {
    HEAP.0.borrow().used()
}

/// How much of the heap [`discard_heap`] would give back, bytes at most.
pub(crate) fn heap_discardable() -> usize {
    HEAP.0.borrow().discardable()
}

/// Gives what is free in the heap back to the host.
pub(crate) fn discard_heap() {
    HEAP.0.borrow_mut().discard(control::discard);
}

/// The `log` crate's output.
struct Log;

impl log::Log for Log {
    fn enabled(&self, _metadata: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let mut line = Text::<LOG_MAX>::new();
        // Text never fails.
        let _ = write!(line, "{} {}: {}", record.level(), record.target(), record.args());
        control::log(line.as_str());
    }

    fn flush(&self) {}
}

/// Lets `log`'s macros write to the VMM, from level "info" on.
pub(crate) fn init_log() {
    if log::set_logger(&Log).is_ok() {
        log::set_max_level(log::LevelFilter::Info);
    }
}

#[cfg(weir_guest)]
mod image {
    use core::alloc::{GlobalAlloc, Layout};
    use core::fmt::Write;
    use core::panic::PanicInfo;

    use weir_abi::control::{EXIT_MAX, exit};

    use super::Global;
    use crate::control;
    use crate::heap::Heap;
    use crate::text::Text;

    // SAFETY: `Heap` hands out disjoint blocks that fit their layouts (property-tested), never unwinds, and takes
    // back under the same contract as this trait's.
    unsafe impl GlobalAlloc for Global {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            self.0.borrow_mut().allocate(layout)
        }

        unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
            self.0.borrow_mut().allocate_zeroed(layout)
        }

        unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
            // SAFETY: the caller's own promise.
            unsafe { self.0.borrow_mut().free(block, layout) };
        }

        unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
            if Heap::fits(layout, size) {
                return block;
            }
            let Ok(new_layout) = Layout::from_size_align(size, layout.align()) else {
                return core::ptr::null_mut();
            };
            let new = self.0.borrow_mut().allocate(new_layout);
            if !new.is_null() {
                // SAFETY: two different blocks, each at least as long as the shorter of both.
                unsafe { core::ptr::copy_nonoverlapping(block, new, layout.size().min(size)) };
                // SAFETY: the caller gives the old block up.
                unsafe { self.0.borrow_mut().free(block, layout) };
            }
            new
        }
    }

    #[panic_handler]
    fn panic(info: &PanicInfo<'_>) -> ! {
        let mut message = Text::<EXIT_MAX>::with_code(exit::PANICKED);
        // Text never fails.
        let _ = write!(message, "{}", info.message());
        if let Some(location) = info.location() {
            let _ = write!(message, " at {location}");
        }
        control::exit(message.as_bytes())
    }
}
