//! One VM's in-flight count, its tenancy and its closed bit, in one atomic word.
//!
//! Where a VM is shared by all requests there is only the count:
//!
//! ```text
//!            enter (count < limit)                      leave
//!   free n  ----------------------> free n+1     free n ------> free n-1
//! ```
//!
//! Where it is isolated (`isolation = "connection" | "request"`) it is *occupied* by one tenancy at a time, and what that
//! has left behind is removed before the next:
//!
//! ```text
//!            occupy              leave                  renew
//!   free 0 ---------> ending 1 ---------> dirty 0 ----------------> free 0, generation + 1
//!                      |    ^                ^
//!                 keep |    | end            | end, revoke
//!                      v    |                |
//!                     held n <------------> held 0
//!                             enter_held, leave
//! ```
//!
//! And whatever it is:
//!
//! ```text
//!   open n --close--> closed n --leave--> ... --leave--> closed 0      (never open again, never dirty any more)
//!   free 0, held 0 --close_if_idle--> closed 0
//! ```
//!
//! A server outside ([`crate::external`]) is always free, and is closed for a time only: `closed n --reopen--> free n`.
//!
//! Because all of it changes together, no request can enter a VM that has been told to drain; a VM that was closed as
//! idle has nobody inside; and nobody can enter a dirty VM, or one that another tenancy has: a tenancy proves itself by
//! the generation, which changes when a VM is renewed. All operations are sequentially consistent: [`crate::shared`]
//! relies on a total order between "there is room" and "somebody began to wait".

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

const CLOSED: u64 = 1 << 63;
const COUNT: u64 = u32::MAX as u64;

const STATE: u64 = 0b11 << 61;
const FREE: u64 = 0b00 << 61;
const ENDING: u64 = 0b01 << 61;
const HELD: u64 = 0b10 << 61;
const DIRTY: u64 = 0b11 << 61;

const GENERATION_SHIFT: u32 = 32;
const GENERATION: u64 = !(CLOSED | STATE | COUNT);

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

/// What a request left behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Left {
    /// A gate that others are in or may enter: how many are in.
    Open(u32),
    /// A gate that is closed and empty: the VM can be stopped.
    ClosedEmpty,
    /// A gate that its tenancy holds, with nobody inside: it can be revoked.
    Idle,
    /// A gate that nobody enters before the VM is renewed, which is for the caller to see to.
    Dirty,
}

/// Whose a gate is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Everybody's, or nobody's yet.
    Free,
    /// A tenancy's, until the last request inside leaves.
    Ending,
    /// A tenancy's, until that is ended or revoked.
    Held,
    /// Nobody's until it is renewed.
    Dirty,
}

impl Gate {
    /// Enters if the gate is open and free, and fewer than `limit` are inside; the count with the caller in it.
    pub(crate) fn enter(&self, limit: u32) -> Option<u32> {
        let enter = |word| (is(word, FREE) && count(word) < limit).then_some(word + 1);
        self.0.fetch_update(SeqCst, SeqCst, enter).ok().map(|before| count(before) + 1)
    }

    /// Enters an open and free gate with nobody inside, as the only request of a new tenancy; whether it did.
    pub(crate) fn occupy(&self) -> bool {
        let occupy = |word| (is(word, FREE) && count(word) == 0).then_some(word | ENDING | 1);
        self.0.fetch_update(SeqCst, SeqCst, occupy).is_ok()
    }

    /// The tenancy of which a request is inside outlives that request; whether it does, for a closed gate does not.
    pub(crate) fn keep(&self) -> bool {
        let keep = |word| is(word, ENDING).then_some(word & !STATE | HELD);
        self.0.fetch_update(SeqCst, SeqCst, keep).is_ok()
    }

    /// Enters as one more request of the tenancy that holds generation `generation`; whether that still does.
    pub(crate) fn enter_held(&self, generation: u32) -> bool {
        let enter = |word| (is(word, HELD) && generation_of(word) == generation).then_some(word + 1);
        self.0.fetch_update(SeqCst, SeqCst, enter).is_ok()
    }

    /// Leaves. Only for who has entered.
    pub(crate) fn leave(&self) -> Left {
        let mut left = Left::Open(0);
        let leave = |word| {
            debug_assert_ne!(count(word), 0, "left a gate that nobody entered");
            let after = word - 1;
            left = match after {
                _ if count(after) > 0 => Left::Open(count(after)),
                _ if after & CLOSED != 0 => Left::ClosedEmpty,
                _ if is(after, ENDING) => Left::Dirty,
                _ if is(after, HELD) => Left::Idle,
                _ => Left::Open(0),
            };
            Some(if left == Left::Dirty { after | DIRTY } else { after })
        };
        // It always has a next value.
        let _ = self.0.fetch_update(SeqCst, SeqCst, leave);
        left
    }

    /// Ends the tenancy that holds generation `generation`, now or when its last request leaves. Whether the gate is
    /// now dirty, which is for the caller to see to.
    pub(crate) fn end(&self, generation: u32) -> bool {
        let end = |word| {
            (is(word, HELD) && generation_of(word) == generation).then_some(match count(word) {
                0 => word | DIRTY,
                _ => word & !STATE | ENDING,
            })
        };
        self.0.fetch_update(SeqCst, SeqCst, end).is_ok_and(|before| count(before) == 0)
    }

    /// Ends a tenancy that has no request inside. Whether the gate is now dirty, which is for the caller to see to.
    pub(crate) fn revoke(&self) -> bool {
        let revoke = |word| (is(word, HELD) && count(word) == 0).then_some(word | DIRTY);
        self.0.fetch_update(SeqCst, SeqCst, revoke).is_ok()
    }

    /// The VM is clean again. Whether anybody can enter now: not if the gate was not dirty, or is closed.
    pub(crate) fn renew(&self) -> bool {
        let renew = |word| is(word, DIRTY).then_some(next_generation(word));
        self.0.fetch_update(SeqCst, SeqCst, renew).is_ok()
    }

    /// Lets nobody in any more.
    pub(crate) fn close(&self) -> Closing {
        let before = self.0.fetch_or(CLOSED, SeqCst);
        Closing { first: before & CLOSED == 0, in_flight: count(before) }
    }

    /// Lets everybody in again. Only for a gate of which nobody relies on its being closed for good.
    pub(crate) fn reopen(&self) {
        self.0.fetch_and(!CLOSED, SeqCst);
    }

    /// Closes only if nobody is inside and the gate is not dirty; whether it did.
    pub(crate) fn close_if_idle(&self) -> bool {
        let close = |word| ((is(word, FREE) || is(word, HELD)) && count(word) == 0).then_some(word | CLOSED);
        self.0.fetch_update(SeqCst, SeqCst, close).is_ok()
    }

    /// Whether [`Self::enter`] would let somebody in.
    pub(crate) fn has_room(&self, limit: u32) -> bool {
        let word = self.0.load(SeqCst);
        is(word, FREE) && count(word) < limit
    }

    /// Requests inside.
    pub(crate) fn in_flight(&self) -> u32 {
        count(self.0.load(SeqCst))
    }

    /// How often it has been renewed, modulo 2^29. Does not change while a request is inside.
    pub(crate) fn generation(&self) -> u32 {
        generation_of(self.0.load(SeqCst))
    }

    /// Requests inside, and whose it is.
    pub(crate) fn state(&self) -> (u32, State) {
        let word = self.0.load(SeqCst);
        let state = match word & STATE {
            FREE => State::Free,
            ENDING => State::Ending,
            HELD => State::Held,
            _ => State::Dirty,
        };
        (count(word), state)
    }
}

/// Open, and in this state.
fn is(word: u64, state: u64) -> bool {
    word & (CLOSED | STATE) == state
}

fn count(word: u64) -> u32 {
    (word & COUNT) as u32
}

fn generation_of(word: u64) -> u32 {
    ((word & GENERATION) >> GENERATION_SHIFT) as u32
}

/// A free and empty gate of the generation after `word`'s.
fn next_generation(word: u64) -> u64 {
    word.wrapping_add(1 << GENERATION_SHIFT) & GENERATION
}

#[cfg(test)]
mod interleavings;
#[cfg(test)]
mod tests;
