//! A VM's control group, which is used on threads that may block: to move a process takes milliseconds.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::task::spawn_blocking;
use weir_config::model::Pool;
use weir_vmm::cgroup::{CgroupLease, CgroupPool, CpuLimits};

use super::child::Child;

/// See the module's documentation. To be dropped when the process is gone.
#[derive(Clone, Debug)]
pub(super) struct Group(Arc<Mutex<CgroupLease>>);

impl Group {
    /// A group for `child`, which will be in it in a moment. `None`, logged: there is no group for it, and what its jail
    /// takes from it has to do.
    pub(super) fn of(groups: &CgroupPool, child: &Child) -> Option<Self> {
        let made = groups.acquire().map_err(|error| warn(&error));
        let process = child.process.duplicate().map_err(|error| warn(&error));
        let (group, process, pid) = (Self(Arc::new(Mutex::new(made.ok()?))), process.ok()?, child.pid);
        let joining = group.clone();
        spawn_blocking(move || {
            // The number of a process that has been reaped may be another's.
            if is_alive(&process)
                && let Err(error) = joining.0.lock().add(pid)
                && is_alive(&process)
            {
                warn(&error);
            }
        });
        Some(group)
    }

    /// Limits what is in it as the VMs of `pool` are, in a moment.
    pub(super) fn limit(&self, pool: &Pool) {
        let cpu = CpuLimits { weight: pool.limits.cpu_weight, quota: pool.limits.cpu_quota };
        let (group, memory) = (self.clone(), pool.memory);
        spawn_blocking(move || group.0.lock().set(cpu, memory).unwrap_or_else(|error| warn(&error)));
    }
}

fn is_alive(process: &OwnedFd) -> bool {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    matches!(poll(&mut [PollFd::new(process, PollFlags::IN)], Some(&now)), Ok(0))
}

fn warn(error: &dyn std::error::Error) {
    let cause = error.source().map(ToString::to_string);
    tracing::warn!(%error, cause, "a vm is not limited by a control group");
}
