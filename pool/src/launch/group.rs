//! A VM's control group, which is used on threads that may block: to move a process takes milliseconds.
//!
//! ```text
//!  of ──joins, in a moment──> joined ──limit──> limited
//!   │                           │                  │
//!   └──────────── cannot ───────┴──────────────────┘──> failed: the process is to be killed
//! ```
//! So a VM runs for some milliseconds before it is held to its limits, but not for longer: what cannot be held is not
//! served.

use std::fmt::Debug;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use weir_config::model::Pool;
use weir_vmm::cgroup::{CgroupError, CgroupLease, CgroupPool, CpuLimits};

use super::child::Pidfd;
use super::parts::prepare;
use crate::launcher::StartError;

/// What a group does to the process in it.
pub(super) trait Confine: Debug + Send + 'static {
    /// Takes a living process in.
    fn add(&self, pid: i32) -> Result<(), CgroupError>;
    /// Limits it; `memory` is its guest's, in bytes.
    fn set(&mut self, cpu: CpuLimits, memory: u64) -> Result<(), CgroupError>;
}

/// See the module's documentation. To be dropped when the process is gone.
#[derive(Clone, Debug)]
pub(super) struct Group(Arc<Held>);

#[derive(Debug)]
struct Held {
    group: Mutex<Box<dyn Confine>>,
    /// Why the process is not held.
    failed: watch::Sender<Option<String>>,
}

impl Group {
    /// One of `groups` for the process `pid`, which will be in it in a moment.
    pub(super) fn of(groups: &CgroupPool, process: &Pidfd, pid: i32) -> Result<Self, StartError> {
        let group = groups.acquire().map_err(|error| prepare("get a control group", error.into()))?;
        Ok(Self::around(Box::new(group), process, pid))
    }

    /// `group` for the process `pid`.
    pub(super) fn around(group: Box<dyn Confine>, process: &Pidfd, pid: i32) -> Self {
        let group = Self(Arc::new(Held { group: Mutex::new(group), failed: watch::Sender::new(None) }));
        group.in_a_moment(process, move |group| group.add(pid));
        group
    }

    /// Limits `process`, which is in it, as the VMs of `pool` are, in a moment.
    pub(super) fn limit(&self, process: &Pidfd, pool: &Pool) {
        let cpu = CpuLimits { weight: pool.limits.cpu_weight, quota: pool.limits.cpu_quota };
        let memory = pool.memory;
        self.in_a_moment(process, move |group| group.set(cpu, memory));
    }

    /// Why its process is not held to its limits, if it is not.
    pub(super) fn failure(&self) -> Option<String> {
        self.0.failed.borrow().clone()
    }

    /// Resolves when its process is not held to its limits, with the reason. Cancel-safe.
    pub(super) async fn failed(&self) -> String {
        let mut failed = self.0.failed.subscribe();
        let reason = failed.wait_for(Option::is_some).await.map(|reason| reason.clone());
        reason.ok().flatten().expect("this group has the sender, and waits for a reason")
    }

    /// Does `action` if `process` lives: the number of one that has been reaped may be another's.
    fn in_a_moment(
        &self,
        process: &Pidfd,
        action: impl FnOnce(&mut dyn Confine) -> Result<(), CgroupError> + Send + 'static,
    ) {
        let held = self.0.clone();
        let process = match process.duplicate() {
            Ok(process) => process,
            Err(error) => return held.fail(&error),
        };
        spawn_blocking(move || {
            if is_alive(&process)
                && let Err(error) = action(&mut **held.group.lock())
                && is_alive(&process)
            {
                held.fail(&error);
            }
        });
    }
}

impl Held {
    fn fail(&self, error: &dyn std::error::Error) {
        let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
        self.failed.send_replace(Some(format!("{error}{cause}")));
    }
}

fn is_alive(process: &OwnedFd) -> bool {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    matches!(poll(&mut [PollFd::new(process, PollFlags::IN)], Some(&now)), Ok(0))
}

impl Confine for CgroupLease {
    fn add(&self, pid: i32) -> Result<(), CgroupError> {
        self.add(pid)
    }

    fn set(&mut self, cpu: CpuLimits, memory: u64) -> Result<(), CgroupError> {
        self.set(cpu, memory)
    }
}
