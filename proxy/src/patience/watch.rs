//! Looks at a request from beside it, and cuts its connection to the VM when its time is over.
//!
//! ```text
//!  begin ──> watching ──the body's patience or the request's time is at its end──> late: the connection is cut
//!               └──dropped with the request, or when a tunnel begins──> over: nothing is cut any more
//! ```

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until};

use super::Meter;
use crate::answer::Refusal;
use crate::upstream::{Cut, Pace};

/// Dropped, it looks no more.
#[derive(Debug)]
pub(crate) struct Watch {
    seen: Arc<Mutex<Seen>>,
    task: AbortHandle,
}

#[derive(Debug)]
struct Seen {
    /// `None`: no body is waited for.
    body: Option<Meter>,
    late: Option<Refusal>,
}

impl Watch {
    /// For a request with a connection to a VM that `cut` ends. `body`: the one that is waited for. `pace`: of the bridge
    /// that it goes over. `deadline`: of the whole request.
    pub(crate) fn begin(
        mut body: Option<Meter>,
        pace: Option<Pace>,
        deadline: Option<Instant>,
        cut: Cut,
    ) -> Self {
        if let Some(body) = &mut body {
            body.wait(Instant::now());
        }
        let seen = Seen { body, late: None };
        let first = seen.next(deadline);
        let seen = Arc::new(Mutex::new(seen));
        let watched = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            let mut next = first;
            while let Some(end) = next {
                sleep_until(end).await;
                let mut seen = watched.lock();
                seen.look(Instant::now(), pace.as_ref(), deadline);
                if seen.late.is_some() {
                    cut.cut();
                    return;
                }
                next = seen.next(deadline);
            }
        });
        Self { seen, task: task.abort_handle() }
    }

    /// A piece of the body has come, the last one or not.
    pub(crate) fn received(&self, bytes: usize, is_last: bool) {
        let mut seen = self.seen.lock();
        let now = Instant::now();
        match &mut seen.body {
            body if is_last => *body = None,
            Some(body) => {
                body.received(bytes, now);
                body.wait(now);
            }
            None => {}
        }
    }

    /// Why the connection was cut, if it was.
    pub(crate) fn late(&self) -> Option<Refusal> {
        self.seen.lock().late
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Seen {
    /// When to look.
    fn next(&self, deadline: Option<Instant>) -> Option<Instant> {
        let body = self.body.as_ref().and_then(Meter::ends_at);
        body.into_iter().chain(deadline).min()
    }

    fn look(&mut self, now: Instant, pace: Option<&Pace>, deadline: Option<Instant>) {
        if let Some(body) = &mut self.body {
            match pace.map(Pace::hungry_since) {
                // Not the client's turn: his VM does not take what he has sent.
                Some(None) => {
                    body.received(usize::MAX, now);
                    body.wait(now);
                }
                Some(Some(since)) => body.wait_from(since),
                None => {}
            }
            if body.ends_at().is_some_and(|end| end <= now) {
                self.late = Some(Refusal::BodyTimeout);
            }
        }
        if deadline.is_some_and(|deadline| deadline <= now) {
            self.late = Some(Refusal::Timeout);
        }
    }
}
