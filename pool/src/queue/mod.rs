//! The requests that wait for a VM: bounded in number and memory, and fair.
//!
//! ```text
//!  classes, by weight ──> routes of a class ──> clients of a route ──> requests of a client, first come first served
//! ```
//! Each level is a [`shares::Shares`]: its members take turns. So a client that sends a thousand requests at once has the
//! same part of its route's VMs as one that sends two, and waits longer for its last ones, not the other for its first.
//!
//! The bounds are fair too. Each request takes a part of the queue, by its number or its bytes, whichever is the larger
//! part. When the parts of all are more than the whole, the newest request of the heaviest client of the heaviest route
//! of the heaviest class has to go, which may be the one that has just come (B. Suter and others, "Design considerations
//! for supporting TCP with per-flow queueing", 1998: longest queue drop). So nobody can shut others out by filling it.

mod caller;
mod shares;

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::time::Instant;
use weir_config::model::{Class, Queue};

pub use caller::{Caller, Client};
use shares::{Backlog, Shares};

use crate::lease::{Lease, LeaseError};

/// A pool's wait queue.
#[derive(Debug)]
pub(crate) struct WaitQueue {
    classes: Classes,
    len: usize,
    next: u64,
    bounds: Bounds,
    closed: bool,
}

/// A class by its name.
#[derive(Clone, Debug)]
struct ClassKey(Arc<Class>);

type Classes = Shares<ClassKey, Routes>;
type Routes = Shares<u32, Clients>;
type Clients = Shares<Client, Requests>;

/// What one client waits for on one route.
#[derive(Debug, Default)]
struct Requests {
    /// In order of arrival.
    waiters: BTreeMap<u64, Placed>,
    load: u64,
}

/// One of them, with the bytes of its head and what it takes of the queue for them.
#[derive(Debug)]
struct Placed {
    waiter: Waiter,
    bytes: u64,
    load: u64,
}

/// A place in the queue: class, route, client, and the request's number.
#[derive(Debug)]
pub(crate) struct Ticket(<Classes as Backlog>::Path);

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

/// How much may wait, in units of which one request without bytes takes `max_memory` and one byte `max_pending`: so the
/// whole is their product, and nothing is rounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bounds {
    max_pending: u64,
    max_memory: u64,
}

impl Bounds {
    fn of(config: &Queue) -> Self {
        Self { max_pending: config.max_pending as u64, max_memory: config.max_memory }
    }

    fn whole(self) -> u64 {
        self.max_pending.saturating_mul(self.max_memory)
    }

    fn load(self, bytes: u64) -> u64 {
        self.max_memory.max(bytes.saturating_mul(self.max_pending))
    }
}

impl WaitQueue {
    pub(crate) fn new(config: &Queue) -> Self {
        let bounds = Bounds::of(config);
        Self { classes: Shares::default(), len: 0, next: 0, bounds, closed: false }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// From now on so much may wait. Where that is less than there is, nobody has to go before the next one comes.
    pub(crate) fn set_bounds(&mut self, config: &Queue) {
        let bounds = Bounds::of(config);
        if bounds == self.bounds {
            return;
        }
        self.bounds = bounds;
        self.classes.reweigh(|routes| {
            routes.reweigh(|clients| clients.reweigh(|requests| requests.reweigh(bounds)));
        });
    }

    /// Puts `waiter` behind the others of its client. Those that had to make room for it are added to `displaced`.
    pub(crate) fn push(
        &mut self,
        caller: &Caller,
        waiter: Waiter,
        displaced: &mut Vec<Waiter>,
    ) -> Result<Ticket, NoPlace> {
        if self.closed {
            return Err(NoPlace::Closed);
        }
        let load = self.bounds.load(caller.bytes);
        if load > self.bounds.whole() {
            return Err(NoPlace::Full);
        }
        let number = self.next;
        self.next += 1;
        let path = (ClassKey(caller.class.clone()), (caller.route, (caller.client, number)));
        self.classes.put(&path.0, caller.class.weight, |routes| {
            routes.put(&caller.route, 1, |clients| {
                clients.put(&caller.client, 1, |requests| {
                    requests.put(number, Placed { waiter, bytes: caller.bytes, load })
                });
            });
        });
        self.len += 1;
        while self.classes.load() > self.bounds.whole()
            && let Some((shed, waiter)) = self.classes.shed(Some(&path))
        {
            self.len -= 1;
            if shed == number {
                return Err(NoPlace::Full);
            }
            displaced.push(waiter);
        }
        Ok(Ticket(path))
    }

    /// Takes the one whose turn it is.
    pub(crate) fn pop(&mut self) -> Option<Waiter> {
        let (_, waiter) = self.classes.pop()?;
        self.len -= 1;
        Some(waiter)
    }

    /// Leaves the queue, if still in it.
    pub(crate) fn leave(&mut self, ticket: &Ticket) {
        let left = self.classes.take(&ticket.0);
        self.len -= usize::from(left.is_some());
    }

    /// Lets nobody in any more.
    pub(crate) fn close(&mut self) {
        self.closed = true;
    }

    /// Takes everybody.
    pub(crate) fn take_all(&mut self) -> Vec<Waiter> {
        std::iter::from_fn(|| self.pop()).collect()
    }
}

impl Requests {
    fn put(&mut self, number: u64, placed: Placed) {
        self.load += placed.load;
        self.waiters.insert(number, placed);
    }

    fn without(&mut self, taken: Option<(u64, Placed)>) -> Option<(u64, Waiter)> {
        let (number, placed) = taken?;
        self.load -= placed.load;
        Some((number, placed.waiter))
    }

    fn reweigh(&mut self, bounds: Bounds) {
        self.waiters.values_mut().for_each(|placed| placed.load = bounds.load(placed.bytes));
        self.load = self.waiters.values().map(|placed| placed.load).sum();
    }
}

impl Backlog for Requests {
    type Path = u64;
    type Item = (u64, Waiter);

    fn pop(&mut self) -> Option<Self::Item> {
        let first = self.waiters.pop_first();
        self.without(first)
    }

    fn shed(&mut self, _: Option<&u64>) -> Option<Self::Item> {
        let last = self.waiters.pop_last();
        self.without(last)
    }

    fn take(&mut self, number: &u64) -> Option<Self::Item> {
        let taken = self.waiters.remove_entry(number);
        self.without(taken)
    }

    fn load(&self) -> u64 {
        self.load
    }
}

impl PartialEq for ClassKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.name == other.0.name
    }
}

impl Eq for ClassKey {}

impl Hash for ClassKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.name.hash(state);
    }
}

#[cfg(test)]
mod tests;
