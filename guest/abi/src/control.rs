//! The control page: the guest's only hypercalls, as plain 8-byte `mov`s to [`crate::layout::CONTROL`].
//!
//! | offset | access | meaning |
//! |---|---|---|
//! | [`VERSION`] | read | [`crate::ABI_VERSION`] |
//! | [`PARK`] | write | give up the CPU; the value is the longest wait in nanoseconds |
//! | [`READY`] | write | the application listens; the value is ignored |
//! | [`LOG`] | write | a [`Slice`] of UTF-8 text, one line, at most [`LOG_MAX`] bytes |
//! | [`EXIT`] | write | a [`Slice`] of [`exit`] code byte followed by UTF-8 text; never returns |
//! | [`DISCARD`] | write | a [`PageRange`] whose contents the guest has no use for |
//!
//! PARK also means "take what I queued": the VMM first serves all virtio queues, then sleeps until a device has
//! something for the guest or the wait is over. `PARK` of [`PARK_YIELD`] serves the queues and returns at once,
//! [`PARK_FOREVER`] has no deadline. A guest may be woken early without cause and must look at its queues, and at
//! whether it became another VM meanwhile ([generations](crate::boot#generations)).
//!
//! DISCARD says: "the contents of these pages of the heap are of no use to me any more". The VMM gives the host's memory
//! behind them back, at once, later or never. Until the guest writes a page again, each of its bytes may be zero or
//! anything that this guest or its snapshot ever had there, and may change between two reads; a page that was written
//! again keeps what was written. The range lies inside [`crate::BootInfo::heap`] and has at least one page, and no
//! virtqueue or buffer that the device may use lies in it. A guest that names any other range ends as crashed.

/// Read: the ABI version, as a u64.
pub const VERSION: u64 = 0x00;
/// Write: park.
pub const PARK: u64 = 0x08;
/// Write: ready.
pub const READY: u64 = 0x10;
/// Write: log line.
pub const LOG: u64 = 0x18;
/// Write: end this VM.
pub const EXIT: u64 = 0x20;
/// Write: give the memory behind a range of pages back.
pub const DISCARD: u64 = 0x28;

/// PARK value: serve the queues, do not sleep.
pub const PARK_YIELD: u64 = 0;
/// PARK value: sleep until a device wakes the guest.
pub const PARK_FOREVER: u64 = u64::MAX;

/// Longest LOG line in bytes; longer ones are cut by the VMM.
pub const LOG_MAX: usize = 4096;
/// Longest EXIT message in bytes, code byte included.
pub const EXIT_MAX: usize = 1024;

/// First byte of an EXIT message.
pub mod exit {
    /// The application ended by itself; the text is its exit code in decimal.
    pub const EXITED: u8 = 0;
    /// The application panicked; the text is the panic message.
    pub const PANICKED: u8 = 1;
    /// A CPU exception that the guest did not expect; the text describes it.
    pub const FAULTED: u8 = 2;
}

/// EXIT value written by the VMM's own gates when a fault happens while a fault is being handled.
pub const EXIT_DOUBLE_FAULT: u64 = 0;

/// A range of guest memory packed into one register: address in the low 48 bits, length in the high 16.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slice(pub u64);

impl Slice {
    /// Packs `address` (below 2^48) and `length`.
    pub const fn new(address: u64, length: u16) -> Self {
        Self(address & 0xffff_ffff_ffff | (length as u64) << 48)
    }

    /// The first byte's guest-physical address.
    pub const fn address(self) -> u64 {
        self.0 & 0xffff_ffff_ffff
    }

    /// The length in bytes.
    pub const fn length(self) -> u16 {
        (self.0 >> 48) as u16
    }
}

/// Size of a page, bytes: the granularity of [`DISCARD`].
pub const PAGE_SIZE: u64 = 4096;

/// A range of pages packed into one register: address of the first in the low 48 bits, number of pages in the high 16.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageRange(pub u64);

impl PageRange {
    /// Most pages in one range (256 MiB less one page).
    pub const MAX_PAGES: u16 = u16::MAX;

    /// Packs `address` (page-aligned, below 2^48) and the number of `pages`.
    pub const fn new(address: u64, pages: u16) -> Self {
        Self(address & 0xffff_ffff_ffff | (pages as u64) << 48)
    }

    /// The first byte's guest-physical address. Whoever receives a range checks that it is page-aligned.
    pub const fn address(self) -> u64 {
        self.0 & 0xffff_ffff_ffff
    }

    /// The number of pages.
    pub const fn pages(self) -> u16 {
        (self.0 >> 48) as u16
    }

    /// The length in bytes.
    pub const fn bytes(self) -> u64 {
        self.pages() as u64 * PAGE_SIZE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slice_keeps_address_and_length() {
        let slice = Slice::new(0xd000_1234, 0xfffe);
        assert_eq!((slice.address(), slice.length()), (0xd000_1234, 0xfffe));
    }

    #[test]
    fn page_range_keeps_address_and_pages() {
        let range = PageRange::new(0xcfff_f000, PageRange::MAX_PAGES);
        assert_eq!((range.address(), range.pages()), (0xcfff_f000, 0xffff));
        assert_eq!(range.bytes(), (256 << 20) - 4096);
        assert_eq!(PageRange(u64::MAX).address(), (1 << 48) - 1);
    }
}
