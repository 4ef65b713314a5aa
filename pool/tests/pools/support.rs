//! What the tests share.

use std::sync::Arc;
use std::time::Duration;

use prometheus::{Registry, TextEncoder};
use tokio::task::JoinHandle;
use weir_config::model;
use weir_pool::fake::{self, Boot, FakeLauncher, Script};
use weir_pool::{Caller, Instances, Lease, LeaseError, Pool, PoolMetrics, Pools, Tenancy};

/// How long a scripted VM boots.
pub(crate) const BOOT: Duration = Duration::from_millis(10);

pub(crate) fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

pub(crate) fn ready() -> Script {
    Script::boot(Boot::Ready(BOOT))
}

/// Pools on a fake launcher.
pub(crate) struct World {
    pub(crate) launcher: Arc<FakeLauncher>,
    pub(crate) pools: Pools,
    registry: Registry,
}

impl World {
    pub(crate) fn new(config: &model::Config, usual: Script) -> Self {
        let launcher = FakeLauncher::new(usual);
        let registry = Registry::new();
        let metrics = PoolMetrics::register(&registry).unwrap();
        let pools = Pools::start(config, launcher.clone(), metrics).unwrap();
        Self { launcher, pools, registry }
    }

    /// One pool called "p", as `fake::pool` makes it but for `change`.
    pub(crate) fn one(usual: Script, change: impl FnOnce(&mut model::Pool)) -> Self {
        let mut pool = fake::pool("p");
        change(&mut pool);
        Self::new(&fake::config([pool]), usual)
    }

    pub(crate) fn pool(&self) -> Arc<Pool> {
        self.pools.get("p").unwrap()
    }

    pub(crate) fn alive(&self) -> usize {
        self.launcher.alive("p").len()
    }

    pub(crate) async fn lease(&self) -> Lease {
        self.pool().lease().await.unwrap()
    }

    /// A request of its own task.
    pub(crate) fn request(&self) -> JoinHandle<Result<Lease, LeaseError>> {
        let pool = self.pool().clone();
        tokio::spawn(async move { pool.lease().await })
    }

    pub(crate) fn requests(&self, count: usize) -> Vec<JoinHandle<Result<Lease, LeaseError>>> {
        (0..count).map(|_| self.request()).collect()
    }

    /// Until the pool's VMs are so.
    pub(crate) async fn until(&self, condition: impl FnMut(&Instances) -> bool) {
        self.pool().instances().wait_for(condition).await.unwrap();
    }

    /// All series that begin so, added up.
    pub(crate) fn sum(&self, series: &str) -> f64 {
        let text = TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap();
        let lines = text.lines().filter(|line| line.starts_with(series));
        lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
    }

    /// The value of the series whose name and labels are exactly these; none: 0.
    pub(crate) fn metric(&self, series: &str) -> f64 {
        let text = TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap();
        let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        value.map_or(0.0, |value| value.parse().unwrap())
    }
}

/// Leases for somebody of whom nothing is known.
pub(crate) trait Anonymous {
    async fn lease(&self) -> Result<Lease, LeaseError>;
}

impl Anonymous for Pool {
    async fn lease(&self) -> Result<Lease, LeaseError> {
        self.lease_for(&Caller::anonymous()).await
    }
}

impl Anonymous for Tenancy {
    async fn lease(&self) -> Result<Lease, LeaseError> {
        self.lease_for(&Caller::anonymous()).await
    }
}

/// Lets every other task run until it waits; time stands still.
pub(crate) async fn settle() {
    for _ in 0..64 {
        tokio::task::yield_now().await;
    }
}
