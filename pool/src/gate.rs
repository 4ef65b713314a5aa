//! One VM's in-flight count and its closed bit, in one atomic word.
//!
//! ```text
//!            enter (count < limit)                      leave
//!   open n  ----------------------> open n+1     open n ------> open n-1
//!
//!   open n  --close--> closed n --leave--> ... --leave--> closed 0      (never open again)
//!   open 0  --close_if_idle--> closed 0
//! ```
//!
//! Because the count and the bit change together, no request can enter a VM that has been told to drain, and a VM
//! that was closed as idle has nobody inside. All operations are sequentially consistent: [`crate::shared`] relies on
//! a total order between "the count went down" and "somebody began to wait".

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

const CLOSED: u64 = 1 << 63;
const COUNT: u64 = u32::MAX as u64;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(crate) struct Gate(AtomicU64);

/// What [`Gate::close`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Closing {
    /// It was open before.
    pub(crate) first: bool,
    /// Requests inside.
    pub(crate) in_flight: u32,
}

impl Gate {
    /// Enters if the gate is open and fewer than `limit` are inside; the count with the caller in it.
    pub(crate) fn enter(&self, limit: u32) -> Option<u32> {
        let enter = |word| (word & CLOSED == 0 && count(word) < limit).then_some(word + 1);
        self.0.fetch_update(SeqCst, SeqCst, enter).ok().map(|before| count(before) + 1)
    }

    /// Leaves; whether the gate is now closed and empty. Only for who has entered.
    pub(crate) fn leave(&self) -> bool {
        let before = self.0.fetch_sub(1, SeqCst);
        debug_assert_ne!(count(before), 0, "left a gate that nobody entered");
        before == CLOSED | 1
    }

    /// Lets nobody in any more.
    pub(crate) fn close(&self) -> Closing {
        let before = self.0.fetch_or(CLOSED, SeqCst);
        Closing { first: before & CLOSED == 0, in_flight: count(before) }
    }

    /// Closes only if nobody is inside; whether it did.
    pub(crate) fn close_if_idle(&self) -> bool {
        self.0.compare_exchange(0, CLOSED, SeqCst, SeqCst).is_ok()
    }

    /// Requests inside.
    pub(crate) fn in_flight(&self) -> u32 {
        count(self.0.load(SeqCst))
    }
}

fn count(word: u64) -> u32 {
    (word & COUNT) as u32
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::AtomicU32;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Enter(u32),
        Leave,
        Close,
        CloseIfIdle,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            6 => (0..5u32).prop_map(Step::Enter),
            6 => Just(Step::Leave),
            1 => Just(Step::Close),
            1 => Just(Step::CloseIfIdle),
        ];
        proptest::collection::vec(step, 0..64)
    }

    proptest! {
        // Each operation is one atomic step, so every interleaving of threads is one of these sequences.
        #[test]
        fn gate_does_as_its_model(steps in steps()) {
            let gate = Gate::default();
            let (mut inside, mut closed) = (0u32, false);
            for step in steps {
                match step {
                    Step::Enter(limit) => {
                        let expected = (!closed && inside < limit).then_some(inside + 1);
                        prop_assert_eq!(gate.enter(limit), expected);
                        inside = expected.unwrap_or(inside);
                    }
                    Step::Leave if inside == 0 => {}
                    Step::Leave => {
                        inside -= 1;
                        prop_assert_eq!(gate.leave(), closed && inside == 0);
                    }
                    Step::Close => {
                        prop_assert_eq!(gate.close(), Closing { first: !closed, in_flight: inside });
                        closed = true;
                    }
                    Step::CloseIfIdle => {
                        let expected = !closed && inside == 0;
                        prop_assert_eq!(gate.close_if_idle(), expected);
                        closed |= expected;
                    }
                }
                prop_assert_eq!(gate.in_flight(), inside);
            }
        }
    }

    #[test]
    fn threads_never_exceed_the_limit_and_exactly_one_sees_a_closed_gate_empty() {
        const LIMIT: u32 = 3;
        let gate = Gate::default();
        let (peak, last) = (AtomicU32::new(0), AtomicU32::new(0));
        let barrier = Barrier::new(5);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    barrier.wait();
                    for _ in 0..10_000 {
                        let Some(inside) = gate.enter(LIMIT) else { continue };
                        peak.fetch_max(inside, SeqCst);
                        if gate.leave() {
                            last.fetch_add(1, SeqCst);
                        }
                    }
                });
            }
            barrier.wait();
            let closing = gate.close();
            if closing.in_flight == 0 {
                last.fetch_add(1, SeqCst);
            }
        });
        assert!(peak.into_inner() <= LIMIT);
        assert_eq!(last.into_inner(), 1);
        assert_eq!(gate.enter(LIMIT), None);
    }
}
