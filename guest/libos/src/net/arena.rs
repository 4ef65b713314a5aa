//! Where in the transmit memory each frame stands.
//!
//! ```text
//!   ┌──────── in flight ────────┐
//!   │ front ........... back    │ free          │      frames lie side by side, in the order in which they are sent;
//!   0                           ▲ head     size        at the end it goes on from 0. Nothing in flight: back to 0.
//! ```
//!
//! A frame may have any length up to the largest, and which one is known only after room for it was promised. Since a
//! PARK usually sends all, nearly every batch begins at 0 again, where the pages are warm: a small response touches one.

use alloc::collections::VecDeque;

/// A frame's bytes must not begin in the middle of a word.
const ALIGN: usize = 16;

#[derive(Clone, Copy, Debug)]
struct Frame {
    token: u16,
    start: usize,
    length: usize,
    done: bool,
}

/// Places of frames in `size` bytes.
#[derive(Debug)]
pub(super) struct Arena {
    size: usize,
    largest: usize,
    most: usize,
    head: usize,
    /// In the order in which they were sent; those that are done before their turn stay until it comes.
    flight: VecDeque<Frame>,
    /// Everything from here on was not used since the last [`Self::forget`].
    touched: usize,
}

impl Arena {
    /// An arena of `size` bytes for up to `most` frames of up to `largest` bytes.
    pub(super) fn new(size: usize, largest: usize, most: usize) -> Self {
        Self { size, largest, most, head: 0, flight: VecDeque::new(), touched: 0 }
    }

    /// Whether [`Self::place`] has room for the largest frame.
    pub(super) fn has_room(&self) -> bool {
        self.flight.len() < self.most && self.room(self.largest).is_some()
    }

    /// Where a frame of `length` bytes goes; the caller has asked [`Self::has_room`].
    pub(super) fn place(&mut self, length: usize) -> Option<usize> {
        let start = self.room(length)?;
        self.touched = self.touched.max(start + length);
        Some(start)
    }

    /// The frame at `start`, which came from [`Self::place`], is on its way under `token`.
    pub(super) fn sent(&mut self, token: u16, start: usize, length: usize) {
        self.head = (start + length).next_multiple_of(ALIGN);
        self.flight.push_back(Frame { token, start, length, done: false });
    }

    /// Start and length of the frame that is on its way under `token`.
    pub(super) fn find(&self, token: u16) -> Option<(usize, usize)> {
        let frame = self.flight.iter().find(|frame| frame.token == token && !frame.done)?;
        Some((frame.start, frame.length))
    }

    /// The frame under `token` is sent.
    pub(super) fn done(&mut self, token: u16) {
        if let Some(frame) = self.flight.iter_mut().find(|frame| frame.token == token && !frame.done) {
            frame.done = true;
        }
        while self.flight.front().is_some_and(|frame| frame.done) {
            self.flight.pop_front();
        }
        if self.flight.is_empty() {
            self.head = 0;
        }
    }

    /// Bytes from the start that were used since the last [`Self::forget`]; `None`: some still are.
    pub(super) fn used(&self) -> Option<usize> {
        self.flight.is_empty().then_some(self.touched)
    }

    /// Nothing that was written is needed any more.
    pub(super) fn forget(&mut self) {
        self.touched = 0;
    }

    fn room(&self, length: usize) -> Option<usize> {
        let Some(front) = self.flight.front() else { return (length <= self.size).then_some(0) };
        // At `head` == `front.start` all is taken, since something is in flight.
        if self.head <= front.start {
            return (self.head + length <= front.start).then_some(self.head);
        }
        if self.head + length <= self.size {
            return Some(self.head);
        }
        (length <= front.start).then_some(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn frames_never_overlap_and_all_room_comes_back(
            steps in proptest::collection::vec((any::<bool>(), 1usize..=300, any::<prop::sample::Index>()), 1..200),
        ) {
            let mut arena = Arena::new(1000, 300, 8);
            let mut live: Vec<(u16, usize, usize)> = Vec::new();
            for (token, (send, length, which)) in (0u16..).zip(steps) {
                if send && arena.has_room() {
                    let start = arena.place(length).unwrap();
                    prop_assert!(start + length <= 1000 && start.is_multiple_of(ALIGN));
                    for (_, other, other_length) in &live {
                        prop_assert!(start + length <= *other || other + other_length <= start);
                    }
                    arena.sent(token, start, length);
                    live.push((token, start, length));
                } else if !live.is_empty() {
                    // A device may be done with frames in any order.
                    let (token, start, length) = live.swap_remove(which.index(live.len()));
                    prop_assert_eq!(arena.find(token), Some((start, length)));
                    arena.done(token);
                    prop_assert_eq!(arena.find(token), None);
                }
                prop_assert!(live.len() <= 8);
            }
            for (token, ..) in live {
                arena.done(token);
            }
            prop_assert!(arena.has_room());
            prop_assert_eq!(arena.place(1), Some(0));
        }
    }

    #[test]
    fn what_was_used_is_known_once_nothing_is_in_flight() {
        let mut arena = Arena::new(1000, 300, 8);
        let start = arena.place(100).unwrap();
        arena.sent(1, start, 100);
        assert_eq!(arena.used(), None);
        arena.done(1);
        assert_eq!(arena.used(), Some(100));
        arena.forget();
        assert_eq!(arena.used(), Some(0));
    }
}
