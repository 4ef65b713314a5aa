//! How long a client may take for one whole header.
//!
//! ```text
//!  idle --first byte--> begun --no more bytes for now--> timed --limit--> late
//!   ^                     |                                |
//!   '---------------------'---- the header is complete ----'
//! ```
//!
//! A connection begins as if the first byte had come. A header that comes in one piece, as nearly all do, costs no timer.

use std::future::Future;
use std::pin::Pin;
use std::task::Context;
use std::time::Duration;

use tokio::time::{Sleep, sleep};

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct HeaderDeadline {
    limit: Duration,
    begun: bool,
    timer: Option<Pin<Box<Sleep>>>,
    /// Number of the request whose header is read.
    request: u32,
}

impl HeaderDeadline {
    pub(super) fn new(limit: Duration) -> Self {
        Self { limit, begun: true, timer: None, request: 0 }
    }

    /// The header is that of the request after `requests` others.
    pub(super) fn follow(&mut self, requests: u32) {
        if self.request != requests {
            *self = Self { request: requests, begun: false, timer: None, limit: self.limit };
        }
    }

    /// Some of the header has come.
    pub(super) fn received(&mut self) {
        self.begun = true;
    }

    pub(super) fn is_late(&mut self, cx: &mut Context<'_>) -> bool {
        self.timer.as_mut().is_some_and(|timer| timer.as_mut().poll(cx).is_ready())
    }

    /// No more of the header has come for now: wakes the task when it is late; whether it is already.
    pub(super) fn arm(&mut self, cx: &mut Context<'_>) -> bool {
        if self.begun && self.timer.is_none() {
            self.timer = Some(Box::pin(sleep(self.limit)));
            return self.is_late(cx);
        }
        false
    }
}
