//! The host's memory and VMs, and starts, shared by all pools.
//!
//! ```text
//!  owner: ask(wants n, has idle ones, ...) --> room, reclaim     what the allotment says
//!         reserve() --> Reservation                              room for one VM, until its process is gone
//!         turns(n)  --> Turn                                     a start under way, until READY
//!         changed() <-- something of the above may be different now
//! ```
//!
//! Every pool's minimum is set aside for it. As long as all get what they want, the rest is first come, first served.
//! When they want more than there is, each has what `allot` gives it: who has more gets nothing more and gives back
//! what is idle, at once. A VM with a request is never taken, only, in the end, given no more requests.

mod allot;
mod state;
mod turns;

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;
use weir_config::model::{Config, Host, Pool};

pub use allot::{Allotment, Claim, Room, allot};
use state::State;

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct HostBudget {
    state: Mutex<State>,
    /// Of each pool, by its number.
    changed: Vec<Notify>,
}

/// One pool's way to the budget. What it has asked for is forgotten when it is dropped; what it has been given is not.
#[derive(Debug)]
pub(crate) struct Share {
    host: Arc<HostBudget>,
    pool: usize,
}

/// Room for one VM; given back when dropped.
#[derive(Debug)]
pub(crate) struct Reservation {
    host: Arc<HostBudget>,
    pool: usize,
}

/// One start under way, until dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    host: Arc<HostBudget>,
}

/// What a pool has and wants, as its owner sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ask {
    /// The minimum that holds now, VMs.
    pub(crate) min: u32,
    /// VMs that it has a use for.
    pub(crate) want: u32,
    /// VMs that are being stopped, or will be when their last request has ended.
    pub(crate) leaving: u32,
    /// VMs that could be stopped at once.
    pub(crate) idle: u32,
}

/// What follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// VMs more that the pool may have.
    pub(crate) room: u32,
    /// VMs that others wait for.
    pub(crate) reclaim: u32,
}

/// The pools' `min` VMs do not fit on the host.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "min of all pools needs {vms} vms and {memory} bytes; host.max_vms is {max_vms}, host.memory {max_memory}"
)]
pub struct MinExceedsHost {
    /// VMs that all pools keep, each at its highest minimum.
    pub vms: u64,
    /// Their memory, bytes.
    pub memory: u128,
    /// `host.max_vms`
    pub max_vms: u32,
    /// `host.memory`, bytes.
    pub max_memory: u64,
}

impl HostBudget {
    /// `config`'s host, for its pools.
    pub(crate) fn new(config: &Config) -> Result<Arc<Self>, MinExceedsHost> {
        let Host { memory: max_memory, max_vms, max_starts, .. } = config.host;
        let pools = || config.pools.values();
        let vms: u64 = pools().map(|pool| u64::from(kept(pool))).sum();
        let memory: u128 = pools().map(|pool| u128::from(pool.memory) * u128::from(kept(pool))).sum();
        if vms > u64::from(max_vms) || memory > u128::from(max_memory) {
            return Err(MinExceedsHost { vms, memory, max_vms, max_memory });
        }
        let host = Room { memory: max_memory.into(), vms: max_vms.into() };
        let claim = |pool: &Arc<Pool>| {
            let Pool { weight, memory, scale, .. } = &**pool;
            Claim { weight: *weight, memory: *memory, min: scale.min, ..Claim::default() }
        };
        let state = State::new(host, max_starts, pools().map(claim).collect());
        let changed = pools().map(|_| Notify::new()).collect();
        Ok(Arc::new(Self { state: Mutex::new(state), changed }))
    }

    /// The way to it of the pool with this number, in the order of the configuration. Once per pool.
    pub(crate) fn share(self: &Arc<Self>, pool: usize) -> Share {
        Share { host: self.clone(), pool }
    }

    fn tell(&self, pools: impl IntoIterator<Item = usize>) {
        for pool in pools {
            self.changed[pool].notify_one();
        }
    }
}

/// VMs that `pool` keeps at times.
fn kept(pool: &Pool) -> u32 {
    pool.scale.schedule.iter().map(|schedule| schedule.min).fold(pool.scale.min, u32::max)
}

impl Share {
    /// Tells what the pool has and wants, and is told what it may.
    pub(crate) fn ask(&self, ask: Ask) -> Answer {
        let (answer, concerned) = self.host.state.lock().ask(self.pool, ask);
        self.host.tell(concerned);
        answer
    }

    /// Room for one VM, if there is any.
    pub(crate) fn reserve(&self) -> Option<Reservation> {
        let reserved = self.host.state.lock().reserve(self.pool);
        reserved.then(|| Reservation { host: self.host.clone(), pool: self.pool })
    }

    /// Turns to start `wants` VMs, as many as are to be had. For the others the pool waits, until it asks again.
    pub(crate) fn turns(&self, wants: u32) -> Vec<Turn> {
        let (taken, concerned) = {
            let mut state = self.host.state.lock();
            (state.turns.take(self.pool, wants), state.next_turns())
        };
        self.host.tell(concerned);
        (0..taken).map(|_| Turn { host: self.host.clone() }).collect()
    }

    /// Starts for which the pool waits.
    pub(crate) fn starts_waiting(&self) -> u32 {
        self.host.state.lock().turns.waiting(self.pool)
    }

    /// Returns when another answer may be given than before.
    pub(crate) async fn changed(&self) {
        self.host.changed[self.pool].notified().await;
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.ask(Ask { min: 0, want: 0, leaving: 0, idle: 0 });
        self.turns(0);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let concerned = self.host.state.lock().give_back(self.pool);
        self.host.tell(concerned);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let concerned = {
            let mut state = self.host.state.lock();
            state.turns.done();
            state.next_turns()
        };
        self.host.tell(concerned);
    }
}

#[cfg(test)]
mod tests;
