//! The real [`Launcher`]: VMs as jailed processes, forked by the launcher process before they are needed.
//!
//! ```text
//!  start(order): a spare child, a TAP, the pool's template -> order over the control socket -> Process
//!
//!  launcher:  spawned --socket ends--> dead --at once, then with growing pauses--> spawned
//!                          its VMs are killed by the kernel; starts fail with "launcher died",
//!                          new ones wait for its successor
//! ```

mod child;
mod connection;
mod group;
mod image;
mod metrics;
mod parts;
mod prepare;
mod process;
mod revision;
mod socket;
mod spares;
mod start;
mod supervisor;
mod template;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use futures::future::{BoxFuture, FutureExt};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use weir_config::model::Pool;
use weir_net::tap::TapPool;
use weir_vmm::cgroup::CgroupPool;
use weir_vmm::launcher::{LauncherHandle, SpawnError};

pub use image::{SealError, seal};
pub use metrics::LaunchMetrics;
pub use template::{Snapshots, SnapshotsError};

use crate::launcher::{Launcher, PrepareError, Prepared, Revision, StartError, StartOrder, VmProcess};
use parts::Parts;
use prepare::Preparation;
use revision::Revisions;
use supervisor::Supervisor;
use template::{Order, Templates};

/// See the module's documentation. Dropping it ends the launcher and all VMs.
#[derive(Debug)]
pub struct VmLauncher {
    _supervisor: Supervisor,
    parts: Arc<Parts>,
    templates: Arc<Templates>,
    read: ReadImage,
    orders: mpsc::UnboundedSender<Order>,
    keeper: JoinHandle<()>,
}

/// Reads an image by the name that a pool's configuration gives it, and checks that it is one; the error names it. It is
/// called on a thread that may block.
#[derive(Clone)]
pub struct ReadImage(Arc<ReadFn>);

type ReadFn = dyn Fn(&str) -> Result<Cow<'static, [u8]>, String> + Send + Sync;

impl ReadImage {
    /// By `read`.
    pub fn new(read: impl Fn(&str) -> Result<Cow<'static, [u8]>, String> + Send + Sync + 'static) -> Self {
        Self(Arc::new(read))
    }
}

impl fmt::Debug for ReadImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReadImage")
    }
}

/// What VMs are made from.
#[derive(Debug)]
pub struct Materials {
    /// Where they get their links.
    pub taps: TapPool,
    /// Largest IP packet on a link, bytes.
    pub mtu: u16,
    /// Pools and their images: memfds from [`seal`].
    pub images: Vec<(Arc<Pool>, OwnedFd)>,
    /// How an image is read again when its pool is restarted.
    pub read: ReadImage,
    /// Pools whose VMs are to be clones of a template; those of others that are there from the start boot.
    pub templates: BTreeMap<String, Arc<Pool>>,
    /// Control groups for VMs, where there are any.
    pub groups: Option<CgroupPool>,
    /// Where templates outlive weir, if anywhere.
    pub snapshots: Option<Snapshots>,
}

impl VmLauncher {
    /// Starts a launcher by `spawn` and, whenever it dies, another one. Inside a tokio runtime whose threads are in the
    /// TAPs' network namespace.
    ///
    /// # Errors
    /// If the first launcher cannot be spawned.
    pub fn new(
        spawn: impl Fn() -> Result<LauncherHandle, SpawnError> + Send + Sync + 'static,
        materials: Materials,
        metrics: LaunchMetrics,
    ) -> Result<Self, SpawnError> {
        let Materials { taps, mtu, images, read, templates, groups, snapshots } = materials;
        let supervisor = Supervisor::start(Arc::new(spawn), groups)?;
        let parts = Arc::new(Parts { launcher: supervisor.current(), taps: Arc::new(taps), mtu });
        let revisions = Revisions::default();
        for (pool, image) in images {
            let cloned = templates.contains_key(&pool.name);
            revisions.add(pool, image, cloned);
        }
        let (orders, ordered) = mpsc::unbounded_channel();
        let (templates, keeper) = Templates::new(templates, revisions, parts.clone(), snapshots, metrics);
        let keeper = tokio::spawn(keeper.run(ordered));
        Ok(Self { _supervisor: supervisor, parts, templates, read, orders, keeper })
    }

    /// How many pools have a template in use, now and whenever that changes.
    pub fn templates(&self) -> watch::Receiver<usize> {
        self.templates.in_use()
    }
}

impl Drop for VmLauncher {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

impl Launcher for VmLauncher {
    fn start(&self, order: StartOrder) -> BoxFuture<'static, Result<Box<dyn VmProcess>, StartError>> {
        let (parts, templates) = (self.parts.clone(), self.templates.clone());
        async move {
            let process = start::start(&parts, &templates, &order).await?;
            Ok(Box::new(process) as Box<dyn VmProcess>)
        }
        .boxed()
    }

    fn add(&self, pool: Arc<Pool>) -> BoxFuture<'static, Result<(), PrepareError>> {
        let (preparation, templates, orders) =
            (Preparation::of(self), self.templates.clone(), self.orders.clone());
        async move {
            let image = preparation.first_image(&pool).await?;
            templates.revisions.add(pool.clone(), image, true);
            // There is nobody to take it only when the launcher has been dropped.
            drop(orders.send(Order::Keep(pool)));
            Ok(())
        }
        .boxed()
    }

    fn remove(&self, pool: &str) {
        drop(self.orders.send(Order::Forget(pool.to_owned())));
        self.templates.revisions.remove(pool);
    }

    fn prepare(
        &self,
        pool: Arc<Pool>,
        revision: Revision,
    ) -> BoxFuture<'static, Result<Prepared, PrepareError>> {
        Preparation::of(self).prepare(pool, revision).boxed()
    }

    fn settle(&self, pool: &str, revision: Revision) {
        if let Some(slot) = self.templates.revisions.get(pool) {
            slot.settle(revision);
        }
    }

    fn has_template(&self, pool: &str) -> bool {
        let slot = self.templates.revisions.get(pool);
        slot.is_some_and(|slot| slot.current().template.load().is_some())
    }
}

#[cfg(test)]
mod tests;
