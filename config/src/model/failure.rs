//! How a pool notices that a VM does not work, and what then becomes of requests.

use std::time::Duration;

use super::Thousandths;

/// `[pool.NAME.health]`: how a VM shows that it works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// What a GET asks for: an absolute path, perhaps with a query, as it stands in a request line. `None`: that the
    /// VM is READY and takes a TCP connection is enough.
    pub path: Option<String>,
    /// How long the answer may take.
    pub timeout: Duration,
    /// Time from one check of a VM to the next.
    pub interval: Duration,
    /// Checks that fail in a row until the VM is out of service: 1 to 100.
    pub unhealthy_after: u32,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            path: None,
            timeout: Duration::from_secs(1),
            interval: Duration::from_secs(5),
            unhealthy_after: 3,
        }
    }
}

/// `[pool.NAME.retry]`: how many requests may be tried again, so that retries cannot multiply an overload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retry {
    /// Retries per request: 0 to 1.
    pub budget: Thousandths,
    /// Retries per second that are allowed however few requests there are: 0 to 10000.
    pub floor: u32,
}

impl Default for Retry {
    fn default() -> Self {
        Self { budget: Thousandths(200), floor: 10 }
    }
}

/// `[pool.NAME.quarantine]`: when a request is taken for what kills VMs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quarantine {
    /// A request that was with so many VMs when they died is refused from then on: 1 to 100.
    pub kills: u32,
    /// How long it is refused.
    pub duration: Duration,
}

impl Default for Quarantine {
    fn default() -> Self {
        Self { kills: 2, duration: Duration::from_secs(60) }
    }
}
