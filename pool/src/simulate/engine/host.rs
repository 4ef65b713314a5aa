//! What the simulated pools share: the host's memory, VMs and starts under way.
//!
//! Every pool's `min` is set aside; the rest is first come, first served.

use weir_config::model::{Config, Pool};

/// What is left.
#[derive(Debug)]
pub(super) struct Room {
    memory: u64,
    vms: u32,
    starts: u32,
}

impl Room {
    pub(super) fn new(config: &Config) -> Self {
        let (mut memory, mut vms) = (config.host.memory, config.host.max_vms);
        for pool in config.pools.values() {
            memory = memory.saturating_sub(pool.memory.saturating_mul(pool.scale.min.into()));
            vms = vms.saturating_sub(pool.scale.min);
        }
        Self { memory, vms, starts: config.host.max_starts }
    }

    /// Room for one more VM of `pool`, which has `has`, to start.
    pub(super) fn take(&mut self, pool: &Pool, has: u32) -> bool {
        let set_aside = has < pool.scale.min;
        if self.starts == 0 || !set_aside && (self.vms == 0 || self.memory < pool.memory) {
            return false;
        }
        self.starts -= 1;
        if !set_aside {
            self.vms -= 1;
            self.memory -= pool.memory;
        }
        true
    }

    /// A start is over.
    pub(super) fn started(&mut self) {
        self.starts += 1;
    }

    /// `pool` has one VM less, and now `has`.
    pub(super) fn give_back(&mut self, pool: &Pool, has: u32) {
        if has >= pool.scale.min {
            self.vms += 1;
            self.memory += pool.memory;
        }
    }
}
