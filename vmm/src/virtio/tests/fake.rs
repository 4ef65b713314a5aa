//! A host's side in memory.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;

use std::os::unix::net::UnixDatagram;
use vm_memory::VolatileSlice;

use crate::virtio::net::{FrameIo, Offloads};

/// What the test sees of the [`FakeIo`] that the device owns. Frames have their virtio header in front.
#[derive(Debug, Default)]
pub(super) struct Wire {
    /// Waiting to be received by the guest.
    pub(super) to_guest: VecDeque<Vec<u8>>,
    /// Sent by the guest.
    pub(super) from_guest: Vec<Vec<u8>>,
    /// What the host may leave undone, as it was last told.
    pub(super) offloads: Option<Offloads>,
    /// Most pieces that a frame was received into in one call.
    pub(super) most_pieces: usize,
    /// What sending fails with.
    pub(super) send_error: Option<io::ErrorKind>,
    /// What receiving fails with.
    pub(super) receive_error: Option<io::ErrorKind>,
}

/// A TAP that is none.
#[derive(Debug)]
pub(super) struct FakeIo {
    wire: Rc<RefCell<Wire>>,
    fd: UnixDatagram,
}

impl FakeIo {
    pub(super) fn new() -> (Self, Rc<RefCell<Wire>>) {
        let wire = Rc::new(RefCell::new(Wire::default()));
        (Self { wire: Rc::clone(&wire), fd: UnixDatagram::unbound().unwrap() }, wire)
    }
}

impl FrameIo for FakeIo {
    fn set_offloads(&mut self, offloads: Offloads) -> io::Result<()> {
        self.wire.borrow_mut().offloads = Some(offloads);
        Ok(())
    }

    fn receive(&mut self, head: &mut [u8], body: &[VolatileSlice<'_>]) -> io::Result<usize> {
        let mut wire = self.wire.borrow_mut();
        if let Some(error) = wire.receive_error {
            return Err(error.into());
        }
        wire.most_pieces = wire.most_pieces.max(body.len());
        let frame = wire.to_guest.pop_front().ok_or(io::ErrorKind::WouldBlock)?;
        let (first, mut rest) = frame.split_at(head.len().min(frame.len()));
        head[..first.len()].copy_from_slice(first);
        for piece in body {
            let (now, later) = rest.split_at(piece.len().min(rest.len()));
            piece.copy_from(now);
            rest = later;
        }
        Ok(frame.len())
    }

    fn send(&mut self, head: &[u8], body: &[VolatileSlice<'_>]) -> io::Result<usize> {
        let mut wire = self.wire.borrow_mut();
        if let Some(error) = wire.send_error {
            return Err(error.into());
        }
        let mut frame = head.to_vec();
        for piece in body {
            let start = frame.len();
            frame.resize(start + piece.len(), 0);
            piece.copy_to(&mut frame[start..]);
        }
        let length = frame.len();
        wire.from_guest.push(frame);
        Ok(length)
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
