//! All pools of one configuration, which may become another while they are used.
//!
//! ```text
//!  stage(change)                commit()                        retire(names)
//!  what can fail ─────────────> pools are added, changed ─────> pools are removed: no new requests,
//!     │ dropped                 the host is resized             what waits and runs has its time, then it ends
//!     v
//!  nothing has changed
//! ```

mod stage;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures::future::join_all;
use tokio::sync::{mpsc, watch};
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

pub use stage::{StageError, Staged};

/// How long ending VMs by force may take: the graces of a start and of a stop, and what the kernel needs.
const FORCE: Duration = Duration::from_secs(5);

/// Every pool by name. Clones are the same pools.
#[derive(Clone, Debug)]
pub struct Pools(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    by_name: ArcSwap<ByName>,
    /// Pools that were removed and are not gone yet.
    leaving: watch::Sender<BTreeMap<String, Arc<Shared>>>,
    common: Common,
}

type ByName = BTreeMap<String, Arc<Pool>>;

/// What all pools share.
struct Common {
    below: Below,
    metrics: PoolMetrics,
    budget: Arc<HostBudget>,
    ids: Arc<AtomicU64>,
}

impl std::fmt::Debug for Common {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Common").field("budget", &self.budget).finish_non_exhaustive()
    }
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
        let common = Common { below: below.into(), metrics, budget, ids: Arc::new(AtomicU64::new(1)) };
        // Each one's minimum is set aside before any of them takes something.
        let shares: Vec<_> = config.pools.values().map(|pool| (pool, common.share(pool))).collect();
        let start = |(pool, share): (&Arc<model::Pool>, Option<Share>)| {
            (pool.name.clone(), common.start(pool, share))
        };
        let by_name: ByName = shares.into_iter().map(start).collect();
        let (by_name, leaving) = (ArcSwap::from_pointee(by_name), watch::Sender::default());
        Ok(Self(Arc::new(Inner { by_name, leaving, common })))
    }

    /// The pool called `name`.
    pub fn get(&self, name: &str) -> Option<Arc<Pool>> {
        self.0.by_name.load().get(name).cloned()
    }

    /// All pools that there are now, by name.
    pub fn all(&self) -> Arc<BTreeMap<String, Arc<Pool>>> {
        self.0.by_name.load_full()
    }

    /// Ends all pools: from now on nobody gets into a queue; those that wait are still served, and leases still run,
    /// until `deadline` has passed. Returns when every VM's process is gone; or, since a process may be stuck in the
    /// kernel for good, some seconds after `deadline`.
    pub async fn drain(&self, deadline: Duration) {
        let until = Instant::now() + deadline;
        let mut ending = self.0.leaving.borrow().clone();
        ending.extend(self.all().iter().map(|(name, pool)| (name.clone(), pool.shared.clone())));
        join_all(ending.values().map(|shared| end(shared, until))).await;
    }
}

impl Common {
    /// The share of the host of a pool of VMs.
    fn share(&self, config: &model::Pool) -> Option<Share> {
        config.external().is_none().then(|| self.budget.share(config))
    }

    /// Starts a pool; `share` is its [`Self::share`], if it has one already.
    fn start(&self, config: &Arc<model::Pool>, share: Option<Share>) -> Arc<Pool> {
        let Self { below, metrics, ids, .. } = self;
        let shared = match config.external() {
            Some(external) => start_servers(config, external, &below.outside, ids, metrics),
            None => {
                let share = share.unwrap_or_else(|| self.budget.share(config));
                start_vms(config, &below.launcher, share, ids, metrics)
            }
        };
        Arc::new(Pool { shared })
    }
}

/// Ends one pool, by force from `until` on.
async fn end(shared: &Shared, until: Instant) {
    // The owner's inbox closes when it has ended, which may have been before.
    drop(shared.events.send(Event::Shutdown { until }));
    if timeout_at(until + FORCE, shared.events.closed()).await.is_err() {
        let left = shared.instances.borrow().total();
        tracing::error!(pool = shared.name, left, "vms cannot be killed, leaving them behind");
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
    tokio::spawn(signal::follow(shared.clone(), metrics.clone()));
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
