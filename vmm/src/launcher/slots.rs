//! Numbers for living VMs: each names a user id that no other living VM has.

/// The numbers below a bound, each given to one holder at a time.
#[derive(Debug)]
pub(super) struct Slots {
    free: Vec<u32>,
    next: u32,
    bound: u32,
}

impl Slots {
    pub(super) fn new(bound: u32) -> Self {
        Self { free: Vec::new(), next: 0, bound }
    }

    /// A number that nobody holds; `None` if all are held.
    pub(super) fn take(&mut self) -> Option<u32> {
        if let Some(slot) = self.free.pop() {
            return Some(slot);
        }
        let slot = self.next;
        (slot < self.bound).then(|| {
            self.next += 1;
            slot
        })
    }

    /// Gives back what [`Self::take`] gave.
    pub(super) fn give_back(&mut self, slot: u32) {
        debug_assert!(slot < self.next && !self.free.contains(&slot));
        self.free.push(slot);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::Slots;

    proptest! {
        #[test]
        fn no_number_is_held_twice(steps in proptest::collection::vec(any::<(bool, u8)>(), 0..200)) {
            let mut slots = Slots::new(8);
            let mut held = BTreeSet::new();
            for (take, pick) in steps {
                if take {
                    match slots.take() {
                        Some(slot) => prop_assert!(slot < 8 && held.insert(slot)),
                        None => prop_assert_eq!(held.len(), 8),
                    }
                } else if let Some(&slot) = held.iter().nth(usize::from(pick) % held.len().max(1)) {
                    held.remove(&slot);
                    slots.give_back(slot);
                }
            }
        }
    }
}
