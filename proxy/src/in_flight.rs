//! How many requests are under way, so that a drain knows when it is done.
//!
//! pingora joins only its accept loops at shutdown; the tasks of accepted connections are detached.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use prometheus::IntGauge;
use tokio::sync::Notify;

/// Counts requests under way. Clones share one count.
#[derive(Clone, Debug)]
pub(crate) struct InFlight(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    count: AtomicUsize,
    gauge: IntGauge,
    none_left: Notify,
}

/// One request under way; dropping it ends it.
#[derive(Debug)]
pub(crate) struct InFlightGuard(Arc<Shared>);

impl InFlight {
    /// `gauge` follows the count.
    pub(crate) fn new(gauge: IntGauge) -> Self {
        Self(Arc::new(Shared { count: AtomicUsize::new(0), gauge, none_left: Notify::new() }))
    }

    pub(crate) fn enter(&self) -> InFlightGuard {
        self.0.count.fetch_add(1, SeqCst);
        self.0.gauge.inc();
        InFlightGuard(Arc::clone(&self.0))
    }

    pub(crate) fn count(&self) -> usize {
        self.0.count.load(SeqCst)
    }

    /// Resolves when no request is under way.
    pub(crate) async fn none_left(&self) {
        loop {
            // Registered before the count is read, so that no end is missed.
            let mut none_left = std::pin::pin!(self.0.none_left.notified());
            none_left.as_mut().enable();
            if self.count() == 0 {
                return;
            }
            none_left.await;
        }
    }
}

impl Drop for InFlightGuard {
    fn drop(&mut self) {
        self.0.gauge.dec();
        if self.0.count.fetch_sub(1, SeqCst) == 1 {
            self.0.none_left.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_last_one_out_ends_the_wait() {
        let gauge = IntGauge::new("g", "g").unwrap();
        let in_flight = InFlight::new(gauge.clone());
        in_flight.none_left().await;
        let (first, second) = (in_flight.enter(), in_flight.enter());
        assert_eq!(gauge.get(), 2);
        let wait = tokio::spawn({
            let in_flight = in_flight.clone();
            async move { in_flight.none_left().await }
        });
        drop(first);
        tokio::task::yield_now().await;
        assert!(!wait.is_finished());
        drop(second);
        wait.await.unwrap();
        assert_eq!(gauge.get(), 0);
    }
}
