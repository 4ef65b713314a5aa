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
    changed: Mutex<Vec<Arc<Notify>>>,
}

/// One pool's way to the budget. What it has asked for is forgotten when it is dropped; what it has been given is not.
#[derive(Debug)]
pub(crate) struct Share {
    host: Arc<HostBudget>,
    pool: usize,
    changed: Arc<Notify>,
}

/// Room for one VM; given back when dropped.
#[derive(Debug)]
pub(crate) struct Reservation {
    host: Arc<HostBudget>,
    pool: usize,
    /// Bytes.
    memory: u64,
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
    /// `config`'s host, which has room for its pools.
    pub(crate) fn new(config: &Config) -> Result<Arc<Self>, MinExceedsHost> {
        fits(config)?;
        let state = State::new(room(&config.host), config.host.max_starts);
        Ok(Arc::new(Self { state: Mutex::new(state), changed: Mutex::default() }))
    }

    /// The host is of this size now. What is taken already stays so.
    pub(crate) fn resize(&self, host: &Host) {
        let concerned = self.state.lock().resize(room(host), host.max_starts);
        self.tell(concerned);
    }

    /// The way to it of `pool`, which has had none so far.
    pub(crate) fn share(self: &Arc<Self>, pool: &Pool) -> Share {
        let (number, concerned) = self.state.lock().add(claim(pool));
        let changed = Arc::new(Notify::new());
        {
            let mut all = self.changed.lock();
            let known = all.len().max(number + 1);
            all.resize_with(known, Arc::default);
            all[number] = changed.clone();
        }
        self.tell(concerned);
        Share { host: self.clone(), pool: number, changed }
    }

    fn tell(&self, pools: impl IntoIterator<Item = usize>) {
        let changed = self.changed.lock();
        pools.into_iter().filter_map(|pool| changed.get(pool)).for_each(|changed| changed.notify_one());
    }
}

/// Whether the host of `config` has room for what its pools always keep.
fn fits(config: &Config) -> Result<(), MinExceedsHost> {
    let Host { memory: max_memory, max_vms, .. } = config.host;
    let pools = || config.pools.values();
    let vms: u64 = pools().map(|pool| u64::from(kept(pool))).sum();
    let memory: u128 = pools().map(|pool| u128::from(pool.memory) * u128::from(kept(pool))).sum();
    if vms > u64::from(max_vms) || memory > u128::from(max_memory) {
        return Err(MinExceedsHost { vms, memory, max_vms, max_memory });
    }
    Ok(())
}

fn room(host: &Host) -> Room {
    Room { memory: host.memory.into(), vms: host.max_vms.into() }
}

fn claim(pool: &Pool) -> Claim {
    Claim { weight: pool.weight, memory: pool.memory, min: pool.scale.min, ..Claim::default() }
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
        let memory = self.host.state.lock().reserve(self.pool)?;
        Some(Reservation { host: self.host.clone(), pool: self.pool, memory })
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
        self.changed.notified().await;
    }

    /// The pool has this weight from now on, and VMs of this size. Those that it has keep theirs.
    pub(crate) fn configure(&self, pool: &Pool) {
        let concerned = self.host.state.lock().configure(self.pool, pool.weight, pool.memory);
        self.host.tell(concerned);
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.ask(Ask { min: 0, want: 0, leaving: 0, idle: 0 });
        self.turns(0);
        self.host.state.lock().leave(self.pool);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let concerned = self.host.state.lock().give_back(self.pool, self.memory);
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
