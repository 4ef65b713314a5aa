//! The real [`Launcher`]: VMs as jailed processes, forked by the launcher process.
//!
//! ```text
//!  start(order): TAP from the pool -> control socket -> Start to the launcher -> Started(pidfd) -> Process
//!
//!  launcher:  spawned --socket ends--> dead --at once, then with growing pauses--> spawned
//!                          its VMs are killed by the kernel; starts fail with "launcher died",
//!                          new ones wait for its successor
//! ```

mod connection;
mod image;
mod process;
mod socket;
mod supervisor;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use futures::future::{BoxFuture, FutureExt};
use tap::Tap;
use weir_net::tap::{TapLink, TapPool};
use weir_vmm::launcher::{LauncherHandle, SpawnError};
use weir_vmm::{NetLimits, NetSpec, VmSpec};

pub use image::{SealError, seal};

use crate::launcher::{Launcher, StartError, StartOrder, VmProcess};
use supervisor::Supervisor;

/// See the module's documentation. Dropping it ends the launcher and all VMs.
#[derive(Debug)]
pub struct VmLauncher {
    supervisor: Supervisor,
    parts: Arc<Parts>,
}

/// What VMs are made from.
#[derive(Debug)]
struct Parts {
    taps: TapPool,
    mtu: u16,
    /// By pool.
    images: BTreeMap<String, OwnedFd>,
}

impl VmLauncher {
    /// Starts a launcher by `spawn` and, whenever it dies, another one. VMs get their links from `taps`, whose MTU is
    /// `mtu`, and their image, a memfd from [`seal`], from `images` by the pool's name. Inside a tokio runtime whose
    /// threads are in the TAPs' network namespace.
    ///
    /// # Errors
    /// If the first launcher cannot be spawned.
    pub fn new(
        spawn: impl Fn() -> Result<LauncherHandle, SpawnError> + Send + Sync + 'static,
        taps: TapPool,
        mtu: u16,
        images: BTreeMap<String, OwnedFd>,
    ) -> Result<Self, SpawnError> {
        let supervisor = Supervisor::start(Arc::new(spawn))?;
        Ok(Self { supervisor, parts: Arc::new(Parts { taps, mtu, images }) })
    }
}

impl Launcher for VmLauncher {
    fn start(&self, order: StartOrder) -> BoxFuture<'static, Result<Box<dyn VmProcess>, StartError>> {
        let (launcher, parts) = (self.supervisor.current(), self.parts.clone());
        async move {
            let (link, tap) = acquire(parts.clone()).await?;
            let image = parts.images.get(&order.pool.name).ok_or_else(|| StartError::Prepare {
                what: format!("find the image of pool {}", order.pool.name),
                source: "not loaded".into(),
            })?;
            let (spec, address) = describe(&order, &link, parts.mtu);
            let connection = launcher.connection().await?;
            let process = connection.start(spec, address, image.as_fd(), Some(tap), Box::new(link)).await?;
            Ok(Box::new(process) as Box<dyn VmProcess>)
        }
        .boxed()
    }
}

/// A TAP and a descriptor of it for the VM; on a thread that may block, since a new one takes several system calls.
async fn acquire(parts: Arc<Parts>) -> Result<(TapLink, OwnedFd), StartError> {
    let prepare = |what: &str, source: Box<dyn std::error::Error + Send + Sync>| StartError::Prepare {
        what: what.to_owned(),
        source,
    };
    let acquired = tokio::task::spawn_blocking(move || parts.taps.acquire()).await;
    let link = acquired
        .map_err(|error| prepare("run a blocking thread", error.into()))?
        .map_err(|error| prepare("get a network link", error.into()))?;
    let tap = link.fd().try_clone_to_owned().map_err(|error| prepare("duplicate the tap", error.into()))?;
    Ok((link, tap))
}

fn describe(order: &StartOrder, link: &TapLink, mtu: u16) -> (VmSpec, SocketAddr) {
    let (pool, link) = (&order.pool, link.link());
    let env = pool.env.clone().tap_mut(|env| {
        env.insert("PORT".to_owned(), pool.port.to_string());
    });
    let net = NetSpec {
        mac: link.guest_mac,
        address: link.guest,
        prefix: link.prefix,
        gateway: link.host,
        gateway_mac: link.host_mac,
        mtu,
        limits: NetLimits::NONE,
    };
    let spec = VmSpec {
        id: order.id,
        pool: pool.name.clone(),
        memory: pool.memory,
        vcpus: pool.vcpus,
        net: Some(net),
        env: env.into_iter().collect(),
        args: pool.args.clone(),
    };
    (spec, (link.guest, pool.port).into())
}

#[cfg(test)]
mod tests;
