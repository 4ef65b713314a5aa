//! Control groups: what one VM may take of CPU, memory and tasks, whatever its guest does.
//!
//! Version 2 is what hosts have, version 1 what some have left, and a few have both; weir takes each controller where
//! it finds it, and does with those that are there. Every VM has a group of its own in each hierarchy, all of them
//! below one group per weir:
//!
//! ```text
//! v1   (weir's own group)/weir-PID/N            in each hierarchy
//! v2   (weir's own group)/weir-PID/N            weir and its launcher step aside into weir.main, for a group
//!                        /weir.main             that gives controllers to others may have no processes
//! ```
//!
//! A group's life. Making and removing one is cheap (0.05 ms), but to move a process waits for an RCU grace period
//! (8 to 16 ms), unless the last move was a moment ago. So a group is chosen for a process before anybody waits for
//! its VM; once the VM is known, its limits are a few writes of microseconds.
//!
//! ```text
//!            make             acquire             lease.add, lease.set        lease dropped
//! nothing ─────────> idle ───────────────> leased ─────────────────> leased ─────────────────┐
//!                     ^                                                                      v
//!                     ├──── limits reset <──── process gone, memory returned? <──── leaving (asked again
//!                     │                              │ memory is still charged       at the next acquire)
//! nothing <───────────┴── pool dropped               └──> removed
//! ```
//!
//! Memory stays charged to a group when it outlives its process: the sealed memory of a template is one such. The
//! next VM would have that much less, so such a group is not used again.

mod doctor;
mod fs;
mod group;
mod knobs;
mod mounts;
mod pool;
mod root;
mod survey;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use std::io;
use std::path::PathBuf;

pub use doctor::doctor;
pub use knobs::{CpuLimits, OVERHEAD};
pub use pool::{CgroupLease, CgroupPool};
pub use root::Cgroups;
pub use survey::{Lack, Place, Survey};

/// A version of the kernel's interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// One hierarchy for each controller (Documentation/admin-guide/cgroup-v1).
    V1,
    /// One hierarchy for all (Documentation/admin-guide/cgroup-v2.rst).
    V2,
}

/// What can be limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Controller {
    /// Weight and quota of CPU time.
    Cpu,
    /// Memory.
    Memory,
    /// Number of tasks.
    Pids,
}

impl Controller {
    /// All that weir uses.
    pub const ALL: [Self; 3] = [Self::Cpu, Self::Memory, Self::Pids];

    /// The kernel's name for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::Pids => "pids",
        }
    }
}

/// Why there are no groups for VMs.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// /proc does not tell.
    #[error("read {}", file.display())]
    Read {
        /// Which file of it.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Each controller lacks something.
    #[error("no cgroup controller is usable: {0}")]
    Unavailable(String),
    /// weir could not step aside.
    #[error("move weir into cgroup {}", group.display())]
    StepAside {
        /// Where to.
        group: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// weir's group, or one for a VM.
    #[error("make cgroup {}", group.display())]
    Make {
        /// Which.
        group: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file of a group.
    #[error("write {text:?} to {}", file.display())]
    Write {
        /// Which file.
        file: PathBuf,
        /// What.
        text: String,
        /// Why.
        source: io::Error,
    },
}
