//! The control page: the guest's only hypercalls, as plain 8-byte `mov`s to [`crate::layout::CONTROL`].
//!
//! | offset | access | meaning |
//! |---|---|---|
//! | [`VERSION`] | read | [`crate::ABI_VERSION`] |
//! | [`PARK`] | write | give up the CPU; the value is the longest wait in nanoseconds |
//! | [`READY`] | write | the application listens; the value is ignored |
//! | [`LOG`] | write | a [`Slice`] of UTF-8 text, one line, at most [`LOG_MAX`] bytes |
//! | [`EXIT`] | write | a [`Slice`] of [`exit`] code byte followed by UTF-8 text; never returns |
//!
//! PARK also means "take what I queued": the VMM first serves all virtio queues, then sleeps until a device has
//! something for the guest or the wait is over. `PARK` of [`PARK_YIELD`] serves the queues and returns at once,
//! [`PARK_FOREVER`] has no deadline. A guest may be woken early without cause and must look at its queues.

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slice_keeps_address_and_length() {
        let slice = Slice::new(0xd000_1234, 0xfffe);
        assert_eq!((slice.address(), slice.length()), (0xd000_1234, 0xfffe));
    }
}
