//! Waiting for a place, and giving one away.
//!
//! A request that finds no room and a lease that ends at the same moment must not miss each other. The request first
//! counts itself as waiting and then tries the gates again; the lease first leaves its gate and then looks whether
//! anybody waits, and gives its place to whose turn it is. All four steps are sequentially consistent, so at least one of
//! the two sees the other. So while somebody waits there is no place that nobody is about to give away, and only the first
//! who waits has to look for one. `gate/interleavings.rs` tries all orders of this.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use parking_lot::MutexGuard;
use prometheus::IntGauge;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};
use weir_config::model::Overflow;

use super::{Shared, whole_seconds};
use crate::choice;
use crate::lease::{Lease, LeaseError, Start};
use crate::queue::{Caller, NoPlace, Ticket, WaitQueue, Waiter};
use crate::vm::Vm;

/// A request's place in the queue, left when dropped, however the wait ended.
struct Place<'a> {
    shared: &'a Shared,
    ticket: Ticket,
    since: Instant,
    depth: IntGauge,
}

impl Shared {
    pub(super) async fn wait(
        self: &Arc<Self>,
        caller: &Caller,
        since: Instant,
        now: Instant,
    ) -> Result<Lease, LeaseError> {
        if self.config().queue.overflow == Overflow::Reject {
            return Err(self.reject());
        }
        let (reply, answer) = oneshot::channel();
        let (place, is_first) = self.enqueue(caller, Waiter { reply, since })?;
        if is_first {
            self.dispatch(now);
        }
        self.wake.notify_one();
        let answer = timeout_at(since + self.config().queue.timeout, answer).await;
        drop(place);
        match answer {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(LeaseError::ShuttingDown),
            Err(_) => Err(LeaseError::TimedOut { retry_after: self.queue_retry_after() }),
        }
    }

    /// Nobody waits here; but the pool is to grow.
    fn reject(&self) -> LeaseError {
        if self.is_closed() {
            return LeaseError::ShuttingDown;
        }
        self.rejected.fetch_add(1, SeqCst);
        self.wake.notify_one();
        LeaseError::NoRoom { retry_after: whole_seconds(Duration::ZERO) }
    }

    /// A place in the queue, and whether nobody was there before.
    fn enqueue(&self, caller: &Caller, waiter: Waiter) -> Result<(Place<'_>, bool), LeaseError> {
        let since = waiter.since;
        let mut displaced = Vec::new();
        let full = LeaseError::QueueFull { retry_after: self.queue_retry_after() };
        let (ticket, is_first) = {
            let mut queue = self.queue.lock();
            let is_first = queue.len() == 0;
            let ticket = queue.push(caller, waiter, &mut displaced);
            self.queue_changed(&queue);
            (ticket, is_first)
        };
        for waiter in displaced {
            // Whoever has gone away needs no answer.
            drop(waiter.reply.send(Err(full.clone())));
        }
        match ticket {
            Ok(ticket) => {
                let depth = self.metrics.queue_depth(&caller.class.name);
                depth.inc();
                Ok((Place { shared: self, ticket, since, depth }, is_first))
            }
            Err(NoPlace::Full) => Err(full),
            Err(NoPlace::Closed) => Err(LeaseError::ShuttingDown),
        }
    }

    /// Gives room to those who wait, in their order, as far as there is any.
    pub(crate) fn dispatch(self: &Arc<Self>, now: Instant) {
        loop {
            let ready = self.ready.load();
            let limit = self.queued_limit.load(SeqCst);
            if !self.give(now, || ready.enter_any(limit, rand::random())) {
                return;
            }
        }
    }

    /// Gives the place that has become free in `vm` to whose turn it is.
    pub(super) fn hand_over(self: &Arc<Self>, vm: &Arc<Vm>, now: Instant) {
        if self.waiting() > 0 {
            let (isolation, limit) = (self.isolation, self.queued_limit.load(SeqCst));
            self.give(now, || choice::enter_this(vm, isolation, limit).then_some(vm));
        }
    }

    /// Gives the place in the VM that `enter` enters to whose turn it is; whether there are both.
    fn give<'a>(self: &Arc<Self>, now: Instant, enter: impl FnOnce() -> Option<&'a Arc<Vm>>) -> bool {
        let (waiter, vm) = {
            let mut queue = self.queue.lock();
            if queue.len() == 0 {
                return false;
            }
            let Some(vm) = enter() else { return false };
            let waiter = queue.pop().expect("it is not empty, and locked");
            self.queue_changed(&queue);
            (waiter, vm.clone())
        };
        let queued = now.saturating_duration_since(waiter.since);
        let start = if vm.ready_at > waiter.since { vm.start } else { Start::Warm };
        let lease = Lease::entered(vm, start, queued);
        // A waiter that has just gone away gives its lease back by dropping it, which hands the place on.
        drop(waiter.reply.send(Ok(lease)));
        true
    }

    /// The owner's: answers everybody who waits with `error`.
    pub(crate) fn fail_waiting(&self, error: &LeaseError) {
        let waiters = {
            let mut queue = self.queue.lock();
            let waiters = queue.take_all();
            self.queue_changed(&queue);
            waiters
        };
        for waiter in waiters {
            // Whoever has gone away needs no answer.
            drop(waiter.reply.send(Err(error.clone())));
        }
    }

    fn queue_changed(&self, queue: &MutexGuard<'_, WaitQueue>) {
        self.waiting.store(queue.len(), SeqCst);
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut queue = self.shared.queue.lock();
        queue.leave(&self.ticket);
        self.shared.queue_changed(&queue);
        drop(queue);
        self.depth.dec();
        let waited = Instant::now().saturating_duration_since(self.since);
        self.shared.metrics.queue_wait.observe(waited.as_secs_f64());
    }
}
