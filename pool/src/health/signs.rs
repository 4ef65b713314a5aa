//! What requests show of a VM in passing.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU32, AtomicU64};

/// Signs of life of one VM. Nothing else depends on their order, so that they cost a request next to nothing.
#[derive(Debug, Default)]
pub(crate) struct Signs {
    /// Requests that were sent and whose answer has not begun.
    awaiting: AtomicU32,
    /// Answers that have begun, ever.
    heard: AtomicU64,
    /// Requests in a row that had no answer in time.
    unanswered: AtomicU32,
}

/// Signs at some time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) awaiting: bool,
    pub(crate) heard: u64,
    /// It has requests, be they answered or not.
    pub(crate) busy: bool,
}

impl Signs {
    /// A request is being sent; followed by one [`Self::waits_no_more`].
    pub(crate) fn asked(&self) {
        self.awaiting.fetch_add(1, Relaxed);
    }

    /// A request has its answer, or has given up.
    pub(crate) fn waits_no_more(&self) {
        self.awaiting.fetch_sub(1, Relaxed);
    }

    /// An answer has begun.
    pub(crate) fn heard(&self) {
        self.heard.fetch_add(1, Relaxed);
        // Reading is cheaper, and nearly always enough.
        if self.unanswered.load(Relaxed) != 0 {
            self.unanswered.store(0, Relaxed);
        }
    }

    /// A request had no answer in time; how many in a row now.
    pub(crate) fn unanswered(&self) -> u32 {
        self.unanswered.fetch_add(1, Relaxed).saturating_add(1)
    }

    /// What was unanswered before does not count any more.
    pub(crate) fn forgive(&self) {
        self.unanswered.store(0, Relaxed);
    }

    /// `busy`: the VM has requests.
    pub(crate) fn see(&self, busy: bool) -> Seen {
        Seen { awaiting: self.awaiting.load(Relaxed) > 0, heard: self.heard.load(Relaxed), busy }
    }
}
