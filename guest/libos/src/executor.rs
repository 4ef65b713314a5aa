//! Tasks of the one thread there is.

use alloc::collections::VecDeque;
use alloc::rc::Rc;
use core::cell::RefCell;
use core::future::Future;

use async_task::{Runnable, Task};

/// A queue of tasks that can go on. Woken tasks queue up in the order in which they were woken.
#[derive(Clone)]
pub struct Executor {
    queue: Rc<RefCell<VecDeque<Runnable>>>,
}

impl Executor {
    /// An executor without tasks.
    ///
    /// # Safety
    /// Wakers of this executor's tasks are used by the current thread only. (A guest has no other.)
    pub unsafe fn new() -> Self {
        Self { queue: Rc::default() }
    }

    /// Queues `future`. Dropping the returned task cancels it; `detach` lets it run on by itself.
    pub fn spawn<T: 'static>(&self, future: impl Future<Output = T> + 'static) -> Task<T> {
        let queue = Rc::clone(&self.queue);
        let schedule = move |runnable| queue.borrow_mut().push_back(runnable);
        // SAFETY: future and schedule are 'static; neither is Send, and by the contract of `new` all wakers, and by
        // `Rc` this executor itself, stay on one thread.
        let (runnable, task) = unsafe { async_task::spawn_unchecked(future, schedule) };
        runnable.schedule();
        task
    }

    /// Lets each task that is queued now go on once. Returns how many there were.
    pub fn run(&self) -> usize {
        let count = self.queue.borrow().len();
        for _ in 0..count {
            let Some(runnable) = self.queue.borrow_mut().pop_front() else { break };
            runnable.run();
        }
        count
    }

    /// Whether no task can go on.
    pub fn is_idle(&self) -> bool {
        self.queue.borrow().is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::future::poll_fn;
    use core::task::{Poll, Waker};

    fn executor() -> Executor {
        // SAFETY: each test uses its executor on its own thread only.
        unsafe { Executor::new() }
    }

    async fn yield_once() {
        let mut yielded = false;
        poll_fn(|context| {
            if core::mem::replace(&mut yielded, true) {
                return Poll::Ready(());
            }
            context.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }

    #[test]
    fn a_task_that_wakes_itself_lets_others_run_first() {
        let executor = executor();
        let order = Rc::new(RefCell::new(Vec::new()));
        for name in ["a", "b"] {
            let order = Rc::clone(&order);
            executor
                .spawn(async move {
                    order.borrow_mut().push(name);
                    yield_once().await;
                    order.borrow_mut().push(name);
                })
                .detach();
        }
        assert_eq!((executor.run(), executor.run(), executor.run()), (2, 2, 0));
        assert_eq!(*order.borrow(), ["a", "b", "a", "b"]);
        assert!(executor.is_idle());
    }

    #[test]
    fn a_task_sleeps_until_it_is_woken_and_ends_when_dropped() {
        let executor = executor();
        let waker = Rc::new(RefCell::new(None::<Waker>));
        let held = Rc::new(());
        let (slot, token) = (Rc::clone(&waker), Rc::clone(&held));
        let task = executor.spawn(async move {
            let _token = token;
            poll_fn(|context| {
                *slot.borrow_mut() = Some(context.waker().clone());
                Poll::<()>::Pending
            })
            .await;
        });
        executor.run();
        assert!(executor.is_idle());
        waker.borrow().as_ref().unwrap().wake_by_ref();
        assert_eq!(executor.run(), 1);
        drop(task);
        executor.run();
        assert_eq!(Rc::strong_count(&held), 1);
    }
}
