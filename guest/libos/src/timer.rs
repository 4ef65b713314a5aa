//! Timers: who wants to be woken when.

use alloc::collections::BTreeMap;
use alloc::rc::Rc;
use core::cell::RefCell;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};

use crate::clock::Instant;

#[derive(Default)]
struct Queue {
    waiting: BTreeMap<(Instant, u64), Waker>,
    next: u64,
    now: Option<Instant>,
}

/// All timers of the guest.
#[derive(Clone, Default)]
pub struct Timers {
    queue: Rc<RefCell<Queue>>,
}

/// Ends at its deadline.
pub struct Sleep {
    queue: Rc<RefCell<Queue>>,
    deadline: Instant,
    id: Option<u64>,
}

impl Timers {
    /// A future that ends once [`Self::fire`] was called with `deadline` or later.
    pub fn at(&self, deadline: Instant) -> Sleep {
        Sleep { queue: Rc::clone(&self.queue), deadline, id: None }
    }

    /// Wakes everyone whose deadline is `now` or earlier.
    pub fn fire(&self, now: Instant) {
        let due = {
            let mut queue = self.queue.borrow_mut();
            queue.now = Some(now);
            let later = queue.waiting.split_off(&(now, u64::MAX));
            core::mem::replace(&mut queue.waiting, later)
        };
        due.into_values().for_each(Waker::wake);
    }

    /// The earliest deadline.
    pub fn next(&self) -> Option<Instant> {
        self.queue.borrow().waiting.first_key_value().map(|((deadline, _), _)| *deadline)
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let mut queue = this.queue.borrow_mut();
        if queue.now.is_some_and(|now| now >= this.deadline) {
            return Poll::Ready(());
        }
        let id = *this.id.get_or_insert_with(|| {
            queue.next += 1;
            queue.next
        });
        queue.waiting.insert((this.deadline, id), context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.queue.borrow_mut().waiting.remove(&(self.deadline, id));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn poll(sleep: &mut Sleep) -> bool {
        Pin::new(sleep).poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn timers_end_at_their_deadline_in_order() {
        let timers = Timers::default();
        let at = Instant::from_nanos;
        let (mut early, mut late, mut same) = (timers.at(at(10)), timers.at(at(20)), timers.at(at(10)));
        assert!(!poll(&mut early) && !poll(&mut late) && !poll(&mut same));
        assert_eq!(timers.next(), Some(at(10)));
        timers.fire(at(9));
        assert!(!poll(&mut early));
        timers.fire(at(10));
        assert!(poll(&mut early) && poll(&mut same) && !poll(&mut late));
        assert_eq!(timers.next(), Some(at(20)));
        drop(late);
        assert_eq!(timers.next(), None);
    }
}
