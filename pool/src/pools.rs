//! All pools of one configuration.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use futures::future::join_all;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use weir_config::model::{self, Config};

use crate::budget::{HostBudget, MinExceedsHost, Share};
use crate::external::{Reach, Servers};
use crate::health::watch;
use crate::launcher::Launcher;
use crate::metrics::PoolMetrics;
use crate::network::{Network, OwnNetwork};
use crate::owner::{Event, Owner};
use crate::pool::Pool;
use crate::shared::Shared;
use crate::signal;

/// How long ending VMs by force may take: the graces of a start and of a stop, and what the kernel needs.
const FORCE: Duration = Duration::from_secs(5);

/// Every pool by name. Clones are the same pools.
#[derive(Clone, Debug)]
pub struct Pools {
    by_name: Arc<BTreeMap<String, Arc<Pool>>>,
}

/// What pools stand on.
#[derive(Clone)]
pub struct Below {
    /// Starts VMs.
    pub launcher: Arc<dyn Launcher>,
    /// Where the servers of external pools are.
    pub outside: Arc<dyn Network>,
}

impl<L: Launcher + 'static> From<Arc<L>> for Below {
    /// Servers are in the network that the calling threads are in.
    fn from(launcher: Arc<L>) -> Self {
        Self { launcher, outside: Arc::new(OwnNetwork) }
    }
}

/// Why no pool was started.
#[derive(Debug, thiserror::Error)]
pub enum StartPoolsError {
    /// The host is too small for what the pools always keep.
    #[error(transparent)]
    MinExceedsHost(#[from] MinExceedsHost),
}

impl Pools {
    /// Starts the owner task of each of `config`'s pools, and with it the VMs that the pool always keeps, or the checks of
    /// its servers. Inside a tokio runtime.
    ///
    /// # Errors
    /// If the pools' `min` together exceed the host's budget.
    pub fn start(
        config: &Config,
        below: impl Into<Below>,
        metrics: PoolMetrics,
    ) -> Result<Self, StartPoolsError> {
        let budget = HostBudget::new(config)?;
        let (below, ids) = (below.into(), Arc::new(AtomicU64::new(1)));
        let start = |(number, config): (usize, &Arc<model::Pool>)| {
            let shared = match config.external() {
                Some(external) => start_servers(config, external, &below.outside, &ids, &metrics),
                None => start_vms(config, &below.launcher, budget.share(number), &ids, &metrics),
            };
            Arc::new(Pool { shared })
        };
        let by_name =
            config.pools.keys().cloned().zip(config.pools.values().enumerate().map(start)).collect();
        Ok(Self { by_name: Arc::new(by_name) })
    }

    /// The pool called `name`.
    pub fn get(&self, name: &str) -> Option<&Arc<Pool>> {
        self.by_name.get(name)
    }

    /// All pools, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Arc<Pool>)> {
        self.by_name.iter().map(|(name, pool)| (name.as_str(), pool))
    }

    /// Ends all pools: from now on nobody gets into a queue; those that wait are still served, and leases still run,
    /// until `deadline` has passed. Returns when every VM's process is gone; or, since a process may be stuck in the
    /// kernel for good, some seconds after `deadline`.
    pub async fn drain(&self, deadline: Duration) {
        let until = Instant::now() + deadline;
        join_all(self.by_name.iter().map(|(name, pool)| async move {
            // The owner's inbox closes when it has ended, which may have been before.
            drop(pool.shared.events.send(Event::Shutdown { until }));
            if timeout_at(until + FORCE, pool.shared.events.closed()).await.is_err() {
                let left = pool.shared.instances.borrow().total();
                tracing::error!(pool = name, left, "vms cannot be killed, leaving them behind");
            }
        }))
        .await;
    }
}

/// Starts the tasks of a pool of VMs.
fn start_vms(
    config: &Arc<model::Pool>,
    launcher: &Arc<dyn Launcher>,
    share: Share,
    ids: &Arc<AtomicU64>,
    metrics: &PoolMetrics,
) -> Arc<Shared> {
    let (events, inbox) = mpsc::unbounded_channel();
    let shared = Shared::new(config.clone(), metrics.series(&config.name), events);
    let owner = Owner::new(shared.clone(), launcher.clone(), share, ids.clone(), inbox);
    tokio::spawn(owner.run());
    tokio::spawn(watch(shared.clone(), launcher.clone()));
    if let Some(signal) = &config.signal {
        tokio::spawn(signal::follow(shared.clone(), signal.clone(), metrics.signal(&config.name)));
    }
    shared
}

/// Starts the task of a pool of servers outside.
fn start_servers(
    config: &Arc<model::Pool>,
    external: &model::External,
    outside: &Arc<dyn Network>,
    ids: &Arc<AtomicU64>,
    metrics: &PoolMetrics,
) -> Arc<Shared> {
    let (events, inbox) = mpsc::unbounded_channel();
    let reach = Arc::new(Reach::new(outside.clone(), external));
    let shared = Shared::reaching(reach.clone(), config.clone(), metrics.series(&config.name), events);
    let servers = Servers::new(shared.clone(), external, reach, ids.clone(), inbox, &metrics.upstream);
    tokio::spawn(servers.run());
    shared
}
