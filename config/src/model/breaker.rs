//! When a pool gets no requests for a while because it fails those that it gets.

use std::time::Duration;

use super::Thousandths;

/// `[pool.NAME.breaker]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Breaker {
    /// So many requests that fail within one window, 1 to 10000, open it, if they are enough of all.
    pub failures: u32,
    /// Part of the window's requests that have to have failed: 0 to 1.
    pub ratio: Thousandths,
    /// Length of the windows that are counted in.
    pub window: Duration,
    /// How long it stays open.
    pub open_for: Duration,
    /// Requests that are let through then and all have to succeed: 1 to 1000.
    pub half_open: u32,
    /// Answers with a status from 500 on are failures.
    pub server_errors: bool,
    /// Requests of the pool at once, those that wait included; `None`: no limit.
    pub max_in_flight: Option<u32>,
}

impl Default for Breaker {
    fn default() -> Self {
        Self {
            failures: 20,
            ratio: Thousandths(500),
            window: Duration::from_secs(10),
            open_for: Duration::from_secs(5),
            half_open: 3,
            server_errors: false,
            max_in_flight: None,
        }
    }
}
