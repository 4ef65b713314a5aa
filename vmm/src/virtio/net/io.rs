//! The host's side of a network device, as a trait so that tests need no TAP.

use std::io;
use std::os::fd::BorrowedFd;

use vm_memory::VolatileSlice;

use super::Offloads;

/// Sends and receives whole frames, each with its `virtio_net_hdr_v1` in front. Never blocks.
pub trait FrameIo {
    /// Says what may be left undone in frames that [`Self::receive`] returns from now on; those that wait already stay
    /// as they are. What [`Self::send`] takes does not depend on it.
    ///
    /// # Errors
    /// If there are no offloads on this side, nor ever will be.
    fn set_offloads(&mut self, offloads: Offloads) -> io::Result<()>;

    /// Receives one frame into `head` and, behind it, `body`. Returns its length in bytes, header included; if it did
    /// not fit, some number above the length of `head` and `body` together.
    ///
    /// # Errors
    /// `WouldBlock` if there is none; any other if there will never be one.
    fn receive(&mut self, head: &mut [u8], body: &[VolatileSlice<'_>]) -> io::Result<usize>;

    /// Sends one frame that consists of `head` and `body`.
    ///
    /// # Errors
    /// `WouldBlock` if it may be tried again later, any other if this frame cannot be sent.
    fn send(&mut self, head: &[u8], body: &[VolatileSlice<'_>]) -> io::Result<usize>;

    /// To be polled for either.
    fn fd(&self) -> BorrowedFd<'_>;
}
