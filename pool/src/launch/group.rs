//! A VM's control group, which is used on threads that may block: to move a process takes milliseconds.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::task::spawn_blocking;
use weir_config::model::Pool;
use weir_vmm::cgroup::{CgroupLease, CgroupPool, CpuLimits};

/// See the module's documentation. To be dropped when the process is gone.
#[derive(Clone, Debug)]
pub(super) struct Group(Arc<Mutex<CgroupLease>>);

impl Group {
    /// A group for the process `pid`, which will be in it in a moment. `None`, logged: there is no group for it, and
    /// what its jail takes from it has to do.
    pub(super) fn of(groups: &CgroupPool, pid: i32) -> Option<Self> {
        let lease = match groups.acquire() {
            Ok(lease) => lease,
            Err(error) => {
                warn(&error);
                return None;
            }
        };
        let group = Self(Arc::new(Mutex::new(lease)));
        let joining = group.clone();
        spawn_blocking(move || joining.0.lock().add(pid).unwrap_or_else(|error| warn(&error)));
        Some(group)
    }

    /// Limits what is in it as the VMs of `pool` are, in a moment.
    pub(super) fn limit(&self, pool: &Pool) {
        let cpu = CpuLimits { weight: pool.limits.cpu_weight, quota: pool.limits.cpu_quota };
        let (group, memory) = (self.clone(), pool.memory);
        spawn_blocking(move || group.0.lock().set(cpu, memory).unwrap_or_else(|error| warn(&error)));
    }
}

fn warn(error: &weir_vmm::cgroup::CgroupError) {
    let cause = std::error::Error::source(error).map(ToString::to_string);
    tracing::warn!(%error, cause, "a vm is not limited by a control group");
}
