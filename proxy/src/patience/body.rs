//! Whether a body comes too slowly over HTTP/1, seen where it is read.
//!
//! pingora reads only when it has room for more, so who is held back by his VM does not lose patience. A body that comes
//! in one piece, as most do, costs no timer.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::time::{Instant, Sleep, sleep_until};
use weir_config::model::Patience;

use super::Meter;

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct BodyDeadline {
    meter: Meter,
    /// Never later than the meter's end.
    timer: Option<Pin<Box<Sleep>>>,
    late: bool,
}

impl BodyDeadline {
    pub(crate) fn new(patience: &Patience) -> Self {
        Self { meter: Meter::new(patience), timer: None, late: false }
    }

    /// Something was read.
    pub(crate) fn received(&mut self, bytes: usize) {
        self.meter.received(bytes, Instant::now());
    }

    /// Nothing is read for now, for the client's sake or for weir's.
    pub(crate) fn rest(&mut self) {
        self.meter.rest(Instant::now());
    }

    /// There was nothing to read: wakes the task when the client is too slow. Ready, once, when he is; what comes then is
    /// read as long as somebody still wants it.
    pub(crate) fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.late {
            return Poll::Pending;
        }
        self.meter.wait(Instant::now());
        while let Some(end) = self.meter.ends_at() {
            let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(end)));
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            if timer.deadline() >= end {
                self.late = true;
                return Poll::Ready(());
            }
            timer.as_mut().reset(end);
        }
        Poll::Pending
    }

    pub(crate) fn is_late(&self) -> bool {
        self.late
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_timer_follows_what_comes() {
        let patience =
            Patience { body_timeout: Duration::from_secs(10), min_body_rate: 1, ..Patience::default() };
        let (mut body, began) = (BodyDeadline::new(&patience), Instant::now());
        for _ in 0..5 {
            let waited = tokio::time::timeout(Duration::from_secs(6), poll_fn(|cx| body.poll_late(cx))).await;
            assert!(waited.is_err());
            body.received(6);
        }
        poll_fn(|cx| body.poll_late(cx)).await;
        assert_eq!((Instant::now() - began).as_secs(), 5 * 6 + 10);
        assert!(body.is_late());
        // It is said once.
        assert!(
            tokio::time::timeout(Duration::from_secs(60), poll_fn(|cx| body.poll_late(cx))).await.is_err()
        );
    }
}
