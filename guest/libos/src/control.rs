//! The control page: this guest's only hypercalls.
//!
//! A `write_volatile` may become any instruction that stores; the VMM can emulate a plain `mov` only. So the
//! instruction is spelled out.

use core::arch::asm;

use weir_abi::control::{self, PAGE_SIZE, PageRange, Slice};
use weir_abi::layout::CONTROL;

fn write(register: u64, value: u64) {
    // SAFETY: the ABI reserves the control page for this; whatever the VMM does there (serve virtqueues, wait) it
    // does to memory that the libOS has handed to it, which is why the compiler must assume memory has changed.
    unsafe {
        asm!("mov [{}], {}", in(reg) CONTROL + register, in(reg) value, options(nostack, preserves_flags))
    }
}

/// Gives the CPU up for at most `nanos` (or [`control::PARK_YIELD`], [`control::PARK_FOREVER`]).
pub(crate) fn park(nanos: u64) {
    write(control::PARK, nanos);
}

/// Tells weir that the application listens.
pub(crate) fn ready() {
    write(control::READY, 0);
}

/// Sends one line of log; what exceeds [`control::LOG_MAX`] is cut.
pub fn log(line: &str) {
    let length = line.floor_char_boundary(control::LOG_MAX);
    write(control::LOG, slice(&line.as_bytes()[..length]).0);
}

/// Gives the host's memory behind `length` bytes of the heap from `start` on back, both multiples of a page. Nobody may
/// rely on what stands there until it is written again.
pub(crate) fn discard(start: usize, length: usize) {
    let mut start = start as u64;
    let mut pages = length as u64 / PAGE_SIZE;
    while pages > 0 {
        let count = u16::try_from(pages).unwrap_or(PageRange::MAX_PAGES);
        let range = PageRange::new(start, count);
        write(control::DISCARD, range.0);
        start += range.bytes();
        pages -= u64::from(count);
    }
}

/// Ends this VM. `message` is a code of [`control::exit`] and UTF-8 text; what exceeds [`control::EXIT_MAX`] is cut.
pub(crate) fn exit(message: &[u8]) -> ! {
    let length = message.len().min(control::EXIT_MAX);
    write(control::EXIT, slice(&message[..length]).0);
    loop {
        // The VMM never lets the guest run on from EXIT.
        core::hint::spin_loop();
    }
}

fn slice(bytes: &[u8]) -> Slice {
    Slice::new(bytes.as_ptr() as u64, u16::try_from(bytes.len()).unwrap_or(u16::MAX))
}
