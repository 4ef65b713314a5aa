//! Frames from the device.
//!
//! Equal buffers, side by side, given to the device in the order in which they stand. A small frame takes one. A large
//! one, if the device may merge buffers, takes several, and since it takes them in order, it nearly always stands in one
//! piece; where it does not (at the end of the buffers), it is copied together.

use alloc::vec::Vec;

use virtio_drivers::queue::VirtQueue;

use super::ethernet::{Frame, Receive};
use super::offload::{HEADER, Header};
use super::rings::{Identity, Memory, QUEUE_SIZE};

/// A buffer that the device has filled.
#[derive(Clone, Copy)]
struct Piece {
    buffer: u8,
    length: usize,
}

/// Where the frame at hand stands.
#[derive(Clone, Copy)]
enum Place {
    /// Its header is at this offset of the buffers.
    Buffers(usize),
    /// Copied together.
    Assembled,
}

/// Packets from the device.
pub(crate) struct Receiver {
    queue: VirtQueue<Identity, QUEUE_SIZE>,
    memory: Memory,
    /// Length of each buffer, bytes.
    size: usize,
    mergeable: bool,
    /// Which buffer each descriptor with the device belongs to.
    owner: [u8; QUEUE_SIZE],
    /// Taken from the used ring, not yet released: the frame at hand.
    pieces: Vec<Piece>,
    /// How many pieces it has; 0: not known yet.
    wanted: usize,
    current: Option<(Place, usize)>,
    assembled: Vec<u8>,
}

impl Receiver {
    /// Offers all buffers, of `size` bytes each, to the device.
    pub(super) fn new(queue: VirtQueue<Identity, QUEUE_SIZE>, size: usize, mergeable: bool) -> Self {
        let mut receiver = Self {
            queue,
            memory: Memory::new(size * QUEUE_SIZE),
            size,
            mergeable,
            owner: [0; QUEUE_SIZE],
            pieces: Vec::new(),
            wanted: 0,
            current: None,
            assembled: Vec::new(),
        };
        (0..u8::try_from(QUEUE_SIZE).unwrap_or(u8::MAX)).for_each(|buffer| receiver.offer(buffer));
        receiver
    }

    fn offset(&self, buffer: u8) -> usize {
        usize::from(buffer) % QUEUE_SIZE * self.size
    }

    fn offer(&mut self, buffer: u8) {
        // SAFETY: the buffer is not with the device: it is new, or was taken from the used ring and is given up now.
        let bytes = unsafe { self.memory.get(self.offset(buffer), self.size) };
        // SAFETY: the buffer is touched again only after it has come back over the used ring.
        if let Ok(token) = unsafe { self.queue.add(&[], &mut [bytes]) } {
            self.owner[usize::from(token) % QUEUE_SIZE] = buffer;
        }
    }

    fn take(&mut self) -> Option<Piece> {
        let token = self.queue.peek_used()?;
        let buffer = self.owner[usize::from(token) % QUEUE_SIZE];
        // SAFETY: the device has put the buffer on the used ring, so it is ours again.
        let bytes = unsafe { self.memory.get(self.offset(buffer), self.size) };
        // SAFETY: the very buffer that was added under this token.
        let length = unsafe { self.queue.pop_used(token, &[], &mut [bytes]) }.ok()?;
        Some(Piece {
            buffer,
            length: usize::try_from(length).map_or(self.size, |length| length.min(self.size)),
        })
    }

    /// The frame at hand, once all of it is there: where it stands, and its length with header.
    fn gather(&mut self) -> Option<(Place, usize)> {
        while self.wanted == 0 || self.pieces.len() < self.wanted {
            let piece = self.take()?;
            if self.wanted == 0 {
                // SAFETY: ours since `take`, and no other reference lives.
                let header = Header::decode(unsafe { self.memory.get(self.offset(piece.buffer), HEADER) });
                self.wanted =
                    if self.mergeable { usize::from(header.buffers).clamp(1, QUEUE_SIZE) } else { 1 };
            }
            self.pieces.push(piece);
        }
        let total = self.pieces.iter().map(|piece| piece.length).sum();
        let adjoins = |pair: &[Piece]| {
            pair[0].length == self.size && usize::from(pair[0].buffer) + 1 == usize::from(pair[1].buffer)
        };
        if self.pieces.windows(2).all(adjoins) {
            return Some((Place::Buffers(self.offset(self.pieces[0].buffer)), total));
        }
        self.assembled.clear();
        for piece in &self.pieces {
            // SAFETY: as above.
            let bytes = unsafe { self.memory.get(self.offset(piece.buffer), piece.length) };
            self.assembled.extend_from_slice(bytes);
        }
        Some((Place::Assembled, total))
    }
}

impl Receive for Receiver {
    fn peek(&mut self) -> Option<Frame<'_>> {
        if self.current.is_none() {
            self.current = self.gather();
        }
        let bytes = match self.current? {
            // SAFETY: these buffers are ours until `release`, which needs the same `&mut self` as this borrow.
            (Place::Buffers(offset), length) => unsafe { &*self.memory.get(offset, length) },
            (Place::Assembled, _) => &self.assembled,
        };
        let vouched = Header::decode(bytes).vouches();
        Some(Frame { bytes: bytes.get(HEADER..).unwrap_or_default(), vouched })
    }

    fn release(&mut self) {
        if self.current.take().is_some() {
            self.wanted = 0;
            for at in 0..self.pieces.len() {
                self.offer(self.pieces[at].buffer);
            }
            self.pieces.clear();
        }
    }

    fn forget(&mut self) {
        if self.current.is_none() {
            self.assembled = Vec::new();
        }
    }
}
