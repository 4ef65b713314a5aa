//! Pools of servers that weir does not start: members that are there, or not.
//!
//! To requests a server is what a VM is: it has a gate, is chosen by what is in flight, and a lease of it is held as long
//! as a request is with it. So they share `crate::shared`, its queue included; what differs is the task that owns the
//! pool. Nothing is started here and nothing stopped. Instead every server has a standing:
//!
//! ```text
//!  its name has it                 a check passes
//!  ───────────────> out of service ──────────────> in service
//!                     ^     │  ^                       │  │ refuses a connection, or
//!                     │     │  │                       │  │ unhealthy_after checks, or requests, in a row fail
//!                     │     │  └───────────────────────┘  │
//!    its name has it  │     │ its name has it no more     │
//!    again            │     v                             │
//!                  leaving <──────────────────────────────┘
//!                     │ the last request has ended
//!                     v
//!                    gone, and its connections with it
//! ```
//!
//! Only who is in service has an open gate; requests that a server has when it closes go on. A server keeps its gate for
//! as long as it is in the pool, so that `hard_limit` holds across an outage, too.
//!
//! A VM that breaks off an answer is replaced at once. A server cannot be, and what breaks may be the request's doing: were
//! one broken answer enough, a client could take all servers away from all others. So only a connection that cannot be
//! made counts at once. What else goes wrong counts when it does so in a row, and never takes the last server that is in
//! service.

mod host;
mod metrics;
mod names;
mod reach;
mod servers;
mod standing;

pub use host::HostNetwork;
pub(crate) use metrics::UpstreamMetrics;
pub(crate) use reach::Reach;
pub(crate) use servers::Servers;
