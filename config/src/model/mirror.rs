//! `[route.mirror]`: copies of requests for another pool.

use std::time::Duration;

use super::Thousandths;

/// `[route.mirror]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    /// Name of the pool that gets the copies, which exists and speaks HTTP/1.1; none of the route's own.
    pub pool: String,
    /// Of how many requests, in per cent: 0 to 100.
    pub percent: Thousandths,
    /// Copies that may be under way at once, 1 to 1000.
    pub max_in_flight: u32,
    /// Requests with larger bodies are not copied, bytes: at most 1 MiB.
    pub max_body: u64,
    /// How long a copy may take, from its lease to its answer's last byte.
    pub timeout: Duration,
    /// Whether copies start VMs where there are none, and wait for them.
    pub wake: bool,
}

impl Default for Mirror {
    fn default() -> Self {
        Self {
            pool: String::new(),
            percent: Thousandths(100_000),
            max_in_flight: 10,
            max_body: 64 << 10,
            timeout: Duration::from_secs(10),
            wake: false,
        }
    }
}
