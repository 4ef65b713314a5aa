//! The requests that wait for a VM: bounded, first in, first out, and left at any time.

use std::collections::BTreeMap;

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::lease::{Lease, LeaseError};

/// A pool's wait queue.
#[derive(Debug)]
pub(crate) struct WaitQueue {
    /// In order of arrival.
    waiters: BTreeMap<Ticket, Waiter>,
    next: u64,
    max_pending: usize,
    closed: bool,
}

/// A place in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ticket(u64);

/// A request that waits.
#[derive(Debug)]
pub(crate) struct Waiter {
    pub(crate) reply: oneshot::Sender<Result<Lease, LeaseError>>,
    pub(crate) since: Instant,
}

/// Why a request may not wait.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NoPlace {
    Full,
    Closed,
}

impl WaitQueue {
    pub(crate) fn new(max_pending: usize) -> Self {
        Self { waiters: BTreeMap::new(), next: 0, max_pending, closed: false }
    }

    pub(crate) fn len(&self) -> usize {
        self.waiters.len()
    }

    /// Puts `waiter` at the end.
    pub(crate) fn push(&mut self, waiter: Waiter) -> Result<Ticket, NoPlace> {
        if self.closed {
            return Err(NoPlace::Closed);
        }
        if self.waiters.len() >= self.max_pending {
            return Err(NoPlace::Full);
        }
        let ticket = Ticket(self.next);
        self.next += 1;
        self.waiters.insert(ticket, waiter);
        Ok(ticket)
    }

    /// Takes the one that has waited longest.
    pub(crate) fn pop(&mut self) -> Option<Waiter> {
        self.waiters.pop_first().map(|(_, waiter)| waiter)
    }

    /// Leaves the queue, if still in it.
    pub(crate) fn leave(&mut self, ticket: Ticket) {
        self.waiters.remove(&ticket);
    }

    /// Lets nobody in any more.
    pub(crate) fn close(&mut self) {
        self.closed = true;
    }

    /// Takes everybody.
    pub(crate) fn take_all(&mut self) -> impl Iterator<Item = Waiter> + use<> {
        std::mem::take(&mut self.waiters).into_values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiter() -> Waiter {
        Waiter { reply: oneshot::channel().0, since: Instant::now() }
    }

    #[test]
    fn bounded_in_order_and_left_at_any_place() {
        let mut queue = WaitQueue::new(3);
        let tickets: Vec<_> = (0..3).map(|_| queue.push(waiter()).unwrap()).collect();
        assert_eq!(queue.push(waiter()).unwrap_err(), NoPlace::Full);
        queue.leave(tickets[0]);
        queue.leave(tickets[0]);
        assert_eq!(queue.len(), 2);
        let last = queue.push(waiter()).unwrap();
        assert!(tickets.iter().all(|ticket| *ticket < last));
        queue.pop();
        queue.leave(tickets[1]);
        assert_eq!(queue.len(), 2, "the popped one was the second");
        queue.close();
        assert_eq!(queue.push(waiter()).unwrap_err(), NoPlace::Closed);
        assert_eq!(queue.take_all().count(), 2);
    }
}
