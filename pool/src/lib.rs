//! weir-pool: which microVMs exist, and which request goes to which. A pool may have servers outside instead, which are
//! chosen, leased and watched as VMs are: `external`.
//!
//! ```text
//!        lease_for()                         Notify                       start / stop
//!  request ----------> Pool (fast path) ----------------> owner task ----------------> VM task -> Launcher
//!     ^                 |  ready list (ArcSwap)             | decide(view, now)          |
//!     |  Lease          |  one Gate per VM                  |  budget, back-off          | Ready, Gone
//!     +-----------------+  wait queue  <--------------------+ <--------------------------+
//! ```
//!
//! Requests to warm VMs never pass through a task: they load the list of ready VMs, choose two, and enter one's
//! `gate`. Everything that changes the list is done by the pool's one `owner` task, on what the pure
//! [`scale::decide`] says. A request that finds no room waits in a bounded queue, and is released by the event that makes
//! room: a READY, or the end of another lease.
//!
//! Where a pool isolates requests or connections, a VM that somebody has used takes nobody else before it has been reset:
//!
//! ```text
//!  lease ends --gate: dirty--> VM task --reset()--> process --READY--> gate: free --> who waits longest
//! ```
#![forbid(unsafe_code)]

mod backoff;
pub mod budget;
mod choice;
mod drive;
mod external;
#[cfg(any(test, feature = "testing"))]
pub mod fake;
mod gate;
mod guest_log;
mod health;
mod idle;
pub mod launch;
mod launcher;
mod lease;
mod metrics;
mod network;
mod owner;
mod pool;
mod pools;
mod queue;
mod rollout;
mod roster;
pub mod scale;
mod shared;
mod signal;
pub mod simulate;
mod status;
mod tenancy;
mod vm;

pub use choice::Member;
pub use external::HostNetwork;
pub use guest_log::printable;
pub use health::{Fingerprint, Pass, Unhealthy};
pub use launch::{LaunchMetrics, Materials, Snapshots, SnapshotsError, VmLauncher};
pub use launcher::{
    Launcher, PrepareError, Prepared, Revision, StartError, StartKind, StartOrder, VmProcess,
};
pub use lease::{Lease, LeaseError, Start};
pub use metrics::PoolMetrics;
pub use network::{Network, OwnNetwork};
pub use pool::{Instances, Pool};
pub use pools::{Below, Pools, StageError, Staged, StartPoolsError};
pub use queue::{Caller, Client};
pub use rollout::{Draining, Replaced, RestartError, Restarting};
pub use scale::decide;
pub use status::{PoolStatus, VmState, VmStatus};
pub use tenancy::Tenancy;
