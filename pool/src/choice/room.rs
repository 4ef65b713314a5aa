//! Which VMs of a list may have room, one bit each: what finds a place in a large pool that is nearly full.
//!
//! A bit is a hint. It is cleared by who finds or makes the VM full, and set by who makes room; who has cleared it looks
//! at the VM once more and takes it back if there is room after all, so that no bit stays clear by mistake. Between the
//! two it may be clear for a moment though there is room: who must not overlook any looks at the VMs themselves.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Room {
    /// Whether any bit may be set.
    any: AtomicBool,
    words: Box<[AtomicU64]>,
}

impl Room {
    /// Every one of `count` VMs may have room.
    pub(super) fn new(count: usize) -> Self {
        let left = |word: usize| (count - word * 64).min(64);
        let words = (0..count.div_ceil(64)).map(|word| AtomicU64::new(u64::MAX >> (64 - left(word))));
        Self { any: AtomicBool::new(count > 0), words: words.collect() }
    }

    /// VM `index` has room.
    pub(super) fn made(&self, index: usize) {
        let (word, bit) = (&self.words[index / 64], 1 << (index % 64));
        if word.load(SeqCst) & bit == 0 {
            word.fetch_or(bit, SeqCst);
        }
        if !self.any.load(SeqCst) {
            self.any.store(true, SeqCst);
        }
    }

    /// VM `index` seemed full; `has_room` looks at it again.
    pub(super) fn used_up(&self, index: usize, has_room: impl FnOnce() -> bool) {
        self.words[index / 64].fetch_and(!(1 << (index % 64)), SeqCst);
        if has_room() {
            self.made(index);
        }
    }

    /// The first VM, from the one that `start` names on and around, that may have room and lets somebody `enter`.
    pub(super) fn find(
        &self,
        start: usize,
        enter: impl Fn(usize) -> bool,
        has_room: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        if !self.any.load(SeqCst) {
            return None;
        }
        let (first, turn) = (start / 64, start % 64);
        let (before, from) = self.words.split_at(first.min(self.words.len()));
        let places = (first..self.words.len()).chain(0..first);
        for (place, word) in places.zip(from.iter().chain(before)) {
            // Turned, so that not always the first of a word is taken.
            let bits = word.load(SeqCst);
            let mut bits = bits >> turn | bits << ((64 - turn) % 64);
            while bits != 0 {
                let index = place * 64 + (bits.trailing_zeros() as usize + turn) % 64;
                if enter(index) {
                    return Some(index);
                }
                self.used_up(index, || has_room(index));
                bits &= bits - 1;
            }
        }
        self.any.store(false, SeqCst);
        if self.words.iter().any(|word| word.load(SeqCst) != 0) {
            self.any.store(true, SeqCst);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_finds_one_as_long_as_there_is_one(
            count in 0..200usize,
            steps in proptest::collection::vec((any::<bool>(), 0..200usize), 0..400),
        ) {
            let room = Room::new(count);
            let mut with_room: BTreeSet<usize> = (0..count).collect();
            for (take, index) in steps {
                let index = index % count.max(1);
                if take {
                    let found = room.find(index, |at| with_room.contains(&at), |at| with_room.contains(&at));
                    prop_assert_eq!(found.is_some(), !with_room.is_empty());
                    if let Some(found) = found {
                        prop_assert!(with_room.remove(&found));
                    }
                } else if count > 0 && with_room.insert(index) {
                    room.made(index);
                }
            }
        }
    }

    #[test]
    fn room_that_comes_back_while_it_is_written_off_is_not_forgotten() {
        let room = Room::new(1);
        assert_eq!(room.find(0, |_| false, |_| true), None, "it was full, and is not any more");
        assert_eq!(room.find(0, |_| true, |_| true), Some(0));
        assert_eq!(room.find(0, |_| false, |_| false), None);
        assert_eq!(room.find(0, |_| true, |_| true), None, "it was full the last time");
        room.made(0);
        assert_eq!(room.find(0, |_| true, |_| true), Some(0));
    }
}
