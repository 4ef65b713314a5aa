//! What the administration endpoint asks of pools, and no more.

use std::sync::Arc;

use futures::future::{BoxFuture, FutureExt};
use weir_pool::{Pool, PoolStatus, Pools, Replaced, RestartError};

/// See the module's documentation.
pub trait Control: Send + Sync {
    /// All pools by name, but those that have ended.
    fn pools(&self) -> BoxFuture<'_, Vec<(String, PoolStatus)>>;

    /// Takes out all VMs of a pool.
    fn drain<'a>(&'a self, pool: &'a str) -> BoxFuture<'a, Result<Drain, OrderError>>;

    /// Begins to replace all VMs of a pool.
    fn restart<'a>(&'a self, pool: &'a str) -> BoxFuture<'a, Result<Restart, OrderError>>;
}

/// How a restart ends; it goes on when this is dropped.
pub type Restart = BoxFuture<'static, Result<Replaced, RestartError>>;

/// A drain that has begun; it goes on when this is dropped.
pub struct Drain {
    /// How many VMs it concerns.
    pub vms: u32,
    /// Resolves when they are gone.
    pub done: BoxFuture<'static, ()>,
}

/// Why an order was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    /// There is no pool of this name.
    #[error("no such pool")]
    NoPool,
    /// The pool has servers outside.
    #[error("its servers are not weir's to end or replace")]
    External,
    /// The pool does not take it.
    #[error(transparent)]
    Refused(#[from] RestartError),
}

impl Control for Pools {
    fn pools(&self) -> BoxFuture<'_, Vec<(String, PoolStatus)>> {
        async {
            let mut statuses = Vec::new();
            for (name, pool) in &*self.all() {
                if let Some(status) = pool.status().await {
                    statuses.push((name.clone(), status));
                }
            }
            statuses
        }
        .boxed()
    }

    fn drain<'a>(&'a self, pool: &'a str) -> BoxFuture<'a, Result<Drain, OrderError>> {
        async move {
            let pool = of_vms(self, pool)?;
            let draining = pool.drain().await.ok_or(RestartError::ShuttingDown)?;
            Ok(Drain { vms: draining.vms, done: draining.done().boxed() })
        }
        .boxed()
    }

    fn restart<'a>(&'a self, pool: &'a str) -> BoxFuture<'a, Result<Restart, OrderError>> {
        async move {
            let pool = of_vms(self, pool)?;
            Ok(pool.restart().await?.done().boxed())
        }
        .boxed()
    }
}

/// The pool of this name, if it has VMs.
fn of_vms(pools: &Pools, name: &str) -> Result<Arc<Pool>, OrderError> {
    let pool = pools.get(name).ok_or(OrderError::NoPool)?;
    if pool.config().external().is_some() { Err(OrderError::External) } else { Ok(pool) }
}
