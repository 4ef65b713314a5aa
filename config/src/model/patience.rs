//! How long weir waits for a client within a request.

use std::time::Duration;

/// The keys of `[route.filter]` that limit time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Patience {
    /// For the whole request, from its header to the answer's last byte; not for what becomes of it after a switch of
    /// protocols. `None`: no limit.
    pub timeout: Option<Duration>,
    /// For the next piece of a request's body. What a client has left of it wanes while it is waited for.
    pub body_timeout: Duration,
    /// Bytes per second that win one second of [`Self::body_timeout`] back; zero: the first byte wins back all.
    pub min_body_rate: u64,
    /// For a client to take one piece of an answer.
    pub write_timeout: Duration,
    /// For either side's next byte after a switch of protocols, and for a gRPC client's next message.
    pub tunnel_idle_timeout: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            timeout: None,
            body_timeout: Duration::from_secs(60),
            min_body_rate: 256,
            write_timeout: Duration::from_secs(60),
            tunnel_idle_timeout: Duration::from_secs(3600),
        }
    }
}
