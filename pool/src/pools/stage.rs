//! From one configuration's pools to another's.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};
use weir_config::change::{Change, PoolChange};
use weir_config::model;

use super::{Pools, end};
use crate::launcher::PrepareError;
use crate::owner::Event;
use crate::shared::Shared;

/// How long a pool that is removed may be held by requests that have not been sent to a VM: those that were routed a moment
/// ago, or are sent once more.
const HOLD: Duration = Duration::from_secs(5);
/// How long requests of a pool that is removed may take.
const RETIRE: Duration = Duration::from_secs(30);

/// A change for which everything is ready. Dropping it forgets it.
#[derive(Debug)]
#[must_use = "nothing has changed yet"]
pub struct Staged {
    pools: Pools,
    change: Change,
    /// Pools that the launcher knows already.
    known: Vec<String>,
}

/// Why a configuration's pools cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("add pool {pool}")]
pub struct StageError {
    /// Which one.
    pub pool: String,
    /// Why not.
    pub source: PrepareError,
}

impl Pools {
    /// Gets everything ready for the pools of `change` to be what it says. One that has the name of a pool that was
    /// removed is waited for until that is gone, which takes some 30 seconds at most. Of several calls each has to wait
    /// for the one before to be committed or dropped.
    ///
    /// # Errors
    /// If a pool cannot be added. Nothing has changed then.
    pub async fn stage(&self, change: &Change) -> Result<Staged, StageError> {
        let mut staged = Staged { pools: self.clone(), change: change.clone(), known: Vec::new() };
        for (name, change) in &change.pools {
            let PoolChange::Added(pool) = change else { continue };
            let mut leaving = self.0.leaving.subscribe();
            // An error would mean that its sender is gone, which `self` has.
            drop(leaving.wait_for(|leaving| !leaving.contains_key(name)).await);
            if pool.external().is_some() {
                continue;
            }
            let added = self.0.common.below.launcher.add(pool.clone()).await;
            added.map_err(|source| StageError { pool: name.clone(), source })?;
            staged.known.push(name.clone());
        }
        Ok(staged)
    }

    /// Removes the pools of these names; returns at once. Whoever still has one can use it for as long as he has it, but no
    /// longer than 5 seconds; what then waits or runs there has 30 seconds in all.
    pub fn retire<'a>(&self, names: impl IntoIterator<Item = &'a str>) {
        for name in names {
            let mut by_name = (*self.all()).clone();
            let Some(pool) = by_name.remove(name) else { continue };
            let shared = pool.shared.clone();
            self.0.leaving.send_modify(|leaving| drop(leaving.insert(name.to_owned(), shared.clone())));
            self.0.by_name.store(Arc::new(by_name));
            drop(pool);
            tokio::spawn(self.clone().end_unused(shared));
        }
    }

    async fn end_unused(self, shared: Arc<Shared>) {
        let until = Instant::now() + RETIRE;
        // Either way it is to end now.
        let _ = timeout(HOLD, shared.released.notified()).await;
        end(&shared, until).await;
        if shared.config().external().is_none() {
            self.0.common.below.launcher.remove(&shared.name);
        }
        tracing::info!(pool = shared.name, "pool removed");
        self.0.leaving.send_modify(|leaving| drop(leaving.remove(&shared.name)));
    }
}

impl Staged {
    /// From now on the pools are what the change says, but those that it removes: they are for [`Pools::retire`], when
    /// nobody is sent to them any more.
    pub async fn commit(mut self) {
        let common = &self.pools.0.common;
        if let Some(host) = &self.change.host {
            common.budget.resize(host);
        }
        let mut by_name = (*self.pools.all()).clone();
        let mut changed = Vec::new();
        for (name, change) in &self.change.pools {
            match change {
                PoolChange::Added(pool) => {
                    by_name.insert(name.clone(), common.start(pool, None));
                }
                PoolChange::Changed(pool) => changed.extend(self.pools.configure(name, pool)),
                PoolChange::Removed => {}
            }
        }
        self.known.clear();
        self.pools.0.by_name.store(Arc::new(by_name));
        // An error means that a pool's owner is gone, and with it what there was to change.
        join_all(changed).await;
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        self.known.iter().for_each(|name| self.pools.0.common.below.launcher.remove(name));
    }
}

impl Pools {
    /// Has the pool called `name` be `config`; resolves when it is.
    fn configure(&self, name: &str, config: &Arc<model::Pool>) -> Option<oneshot::Receiver<()>> {
        let pool = self.get(name)?;
        let (done, configured) = oneshot::channel();
        drop(pool.shared.events.send(Event::Configure { pool: config.clone(), done }));
        Some(configured)
    }
}
