//! The host's memory and VM count, shared by all pools.
//!
//! Every pool's `min` VMs are set aside for it from the beginning; the rest is first come, first served. A pool that
//! finds nothing left keeps its requests waiting and is woken when something is given back.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;
use weir_config::model::{Config, Host, Pool};

/// What no pool has set aside or taken.
#[derive(Debug)]
pub(crate) struct HostBudget {
    rest: Mutex<Rest>,
    given_back: watch::Sender<()>,
}

#[derive(Clone, Copy, Debug)]
struct Rest {
    memory: u64,
    vms: u32,
}

/// One pool's way to the budget.
#[derive(Debug)]
pub(crate) struct Share {
    host: Arc<HostBudget>,
    /// Per VM, bytes.
    memory: u64,
    /// VMs set aside for this pool.
    min: u32,
    /// VMs that it has. Which of them are the ones set aside does not matter: those beyond `min` are of the rest.
    taken: Mutex<u32>,
}

/// Room for one VM; given back when dropped.
#[derive(Debug)]
pub(crate) struct Reservation {
    share: Arc<Share>,
}

/// The pools' `min` VMs do not fit on the host.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "min of all pools needs {vms} vms and {memory} bytes; host.max_vms is {max_vms}, host.memory {max_memory}"
)]
pub struct MinExceedsHost {
    /// VMs that all pools' `min` add up to.
    pub vms: u64,
    /// Their memory, bytes.
    pub memory: u128,
    /// `host.max_vms`
    pub max_vms: u32,
    /// `host.memory`, bytes.
    pub max_memory: u64,
}

impl HostBudget {
    /// What `config`'s host has beyond the pools' `min`.
    pub(crate) fn new(config: &Config) -> Result<Arc<Self>, MinExceedsHost> {
        let Host { memory: max_memory, max_vms, .. } = config.host;
        let vms: u64 = config.pools.values().map(|pool| u64::from(pool.scale.min)).sum();
        let of = |pool: &Pool| u128::from(pool.memory) * u128::from(pool.scale.min);
        let memory: u128 = config.pools.values().map(|pool| of(pool)).sum();
        let exceeds = MinExceedsHost { vms, memory, max_vms, max_memory };
        let rest_memory = u64::try_from(memory).ok().and_then(|memory| max_memory.checked_sub(memory));
        let rest_vms = u32::try_from(vms).ok().and_then(|vms| max_vms.checked_sub(vms));
        match (rest_memory, rest_vms) {
            (Some(memory), Some(vms)) => {
                let rest = Mutex::new(Rest { memory, vms });
                Ok(Arc::new(Self { rest, given_back: watch::Sender::new(()) }))
            }
            _ => Err(exceeds),
        }
    }

    /// `pool`'s way to it. Once per pool.
    pub(crate) fn share(self: &Arc<Self>, pool: &Pool) -> Arc<Share> {
        let (memory, min) = (pool.memory, pool.scale.min);
        Arc::new(Share { host: self.clone(), memory, min, taken: Mutex::new(0) })
    }
}

impl Share {
    /// Room for one VM, if there is any.
    pub(crate) fn reserve(self: &Arc<Self>) -> Option<Reservation> {
        let mut taken = self.taken.lock();
        if *taken >= self.min && !self.take_rest() {
            return None;
        }
        *taken += 1;
        Some(Reservation { share: self.clone() })
    }

    /// Tells when any pool has given something back.
    pub(crate) fn given_back(&self) -> watch::Receiver<()> {
        self.host.given_back.subscribe()
    }

    fn take_rest(&self) -> bool {
        let mut rest = self.host.rest.lock();
        let left = (rest.memory.checked_sub(self.memory)).zip(rest.vms.checked_sub(1));
        if let Some((memory, vms)) = left {
            *rest = Rest { memory, vms };
        }
        left.is_some()
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let share = &self.share;
        let mut taken = share.taken.lock();
        *taken -= 1;
        if *taken < share.min {
            return;
        }
        let mut rest = share.host.rest.lock();
        rest.memory += share.memory;
        rest.vms += 1;
        drop((rest, taken));
        share.host.given_back.send_replace(());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fake;

    fn budget(memory: u64, max_vms: u32, pools: &[(u64, u32)]) -> Result<Vec<Arc<Share>>, MinExceedsHost> {
        let pools = pools.iter().enumerate().map(|(index, &(memory, min))| {
            let mut pool = fake::pool(&format!("p{index}"));
            (pool.memory, pool.scale.min) = (memory, min);
            pool
        });
        let mut config = fake::config(pools);
        (config.host.memory, config.host.max_vms) = (memory, max_vms);
        let host = HostBudget::new(&config)?;
        Ok(config.pools.values().map(|pool| host.share(pool)).collect())
    }

    #[test]
    fn min_is_set_aside_and_the_rest_is_shared() {
        let shares = budget(100, 10, &[(10, 2), (30, 1)]).unwrap();
        let mut taken: Vec<_> = (0..7).map(|_| shares[0].reserve().unwrap()).collect();
        assert!(shares[0].reserve().is_none(), "70 of 100 bytes taken, 30 set aside for the other");
        let guaranteed = shares[1].reserve().unwrap();
        assert!(shares[1].reserve().is_none());
        taken.truncate(4);
        assert!(shares[1].reserve().is_some(), "30 bytes were given back");
        drop(guaranteed);
        assert!(shares[1].reserve().is_some());
    }

    #[test]
    fn vm_count_limits_too() {
        let shares = budget(1000, 3, &[(1, 0), (1, 1)]).unwrap();
        let _taken = [shares[0].reserve().unwrap(), shares[0].reserve().unwrap()];
        assert!(shares[0].reserve().is_none());
        assert!(shares[1].reserve().is_some());
    }

    #[test]
    fn giving_back_wakes_who_waits() {
        let shares = budget(10, 1, &[(10, 0), (10, 0)]).unwrap();
        let given_back = shares[1].given_back();
        let taken = shares[0].reserve().unwrap();
        assert!(!given_back.has_changed().unwrap());
        drop(taken);
        assert!(given_back.has_changed().unwrap());
    }

    proptest! {
        #[test]
        fn no_more_than_the_host_has_and_no_less_than_min(
            pools in proptest::collection::vec((1..40u64, 0..3u32), 1..4),
            (memory, max_vms) in (0..300u64, 0..12u32),
            steps in proptest::collection::vec((0..4usize, any::<bool>(), 0..16usize), 0..80),
        ) {
            let Ok(shares) = budget(memory, max_vms, &pools) else { return Ok(()) };
            let mut taken: Vec<Vec<Reservation>> = pools.iter().map(|_| Vec::new()).collect();
            for (pool, take, nth) in steps {
                let pool = pool % pools.len();
                // What a pool has beyond its min, or has to keep free for it.
                let bound = |n: usize| taken[n].len().max(pools[n].1 as usize) as u64;
                let used = (0..pools.len()).map(|n| bound(n) * pools[n].0).sum::<u64>();
                let vms = (0..pools.len()).map(bound).sum::<u64>();
                prop_assert!(used <= memory && vms <= u64::from(max_vms));
                if take {
                    let below_min = taken[pool].len() < pools[pool].1 as usize;
                    let fits = used + pools[pool].0 <= memory && vms < u64::from(max_vms);
                    let reservation = shares[pool].reserve();
                    prop_assert_eq!(reservation.is_some(), below_min || fits);
                    taken[pool].extend(reservation);
                } else if nth < taken[pool].len() {
                    taken[pool].swap_remove(nth);
                }
            }
        }
    }

    #[test]
    fn min_beyond_the_host_is_an_error() {
        assert_eq!(budget(100, 10, &[(51, 1), (50, 1)]).unwrap_err().memory, 101);
        assert_eq!(budget(u64::MAX, 3, &[(1, 2), (1, 2)]).unwrap_err().vms, 4);
        assert!(budget(u64::MAX, 10, &[(u64::MAX, 2), (1, 1)]).is_err());
    }
}
