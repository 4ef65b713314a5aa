//! What every VM is made from: a link, an image, and the words that describe it to its process.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use tap::Tap;
use weir_config::model::Pool;
use weir_net::tap::{TapLink, TapPool};
use weir_vmm::{NetLimits, NetSpec, Rate, VmId, VmSpec};

use super::spares::Taken;
use super::supervisor::Current;
use crate::launcher::StartError;

/// How many children are tried for one that answers; the last one is taken as it is.
const CHILDREN: usize = 4;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) launcher: Current,
    pub(super) taps: Arc<TapPool>,
    pub(super) mtu: u16,
}

/// A network link, and a descriptor of its TAP for the VM.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) link: TapLink,
    pub(super) tap: OwnedFd,
}

impl Parts {
    /// A child and a link for a VM.
    pub(super) async fn gather(&self) -> Result<(Taken, Link), StartError> {
        let spares = self.launcher.clone().spares().await?;
        let (taken, link) = tokio::join!(spares.take(), self.link());
        Ok((taken?, link?))
    }

    /// As [`Self::gather`], but a child that answers. That takes a moment, which only a VM that boots does not mind.
    pub(super) async fn gather_awake(&self) -> Result<(Taken, Link), StartError> {
        let (mut taken, link) = self.gather().await?;
        for _ in 1..CHILDREN {
            if taken.child.is_awake().await.map_err(StartError::Refused)? {
                return Ok((taken, link));
            }
            tracing::warn!(pid = taken.child.pid, "a child does not answer, taking another one");
            taken = self.launcher.clone().spares().await?.take().await?;
        }
        Ok((taken, link))
    }

    /// A TAP; a new one is made on a thread that may block, since it takes several system calls.
    async fn link(&self) -> Result<Link, StartError> {
        let failed = |error: weir_net::tap::TapError| prepare("get a network link", error.into());
        let link = match self.taps.try_idle().map_err(failed)? {
            Some(link) => link,
            None => {
                let taps = self.taps.clone();
                let acquired = tokio::task::spawn_blocking(move || taps.acquire()).await;
                acquired.map_err(|error| prepare("run a blocking thread", error.into()))?.map_err(failed)?
            }
        };
        let tap =
            link.fd().try_clone_to_owned().map_err(|error| prepare("duplicate the tap", error.into()))?;
        Ok(Link { link, tap })
    }

    /// What a VM of `pool` at the guest's end of `link` is.
    pub(super) fn spec(&self, id: VmId, pool: &Pool, link: &TapLink) -> VmSpec {
        let env = pool.env.clone().tap_mut(|env| {
            env.insert("PORT".to_owned(), pool.port.to_string());
        });
        VmSpec {
            id,
            pool: pool.name.clone(),
            memory: pool.memory,
            vcpus: pool.vcpus,
            net: Some(self.net(pool, link)),
            env: env.into_iter().collect(),
            args: pool.args.clone(),
            log_lines: pool.limits.log_lines,
        }
    }

    /// The guest's end of `link`, with the limits of `pool`.
    pub(super) fn net(&self, pool: &Pool, link: &TapLink) -> NetSpec {
        let (link, limits) = (link.link(), &pool.limits);
        let send = Rate { bytes_per_second: limits.send_rate, packets_per_second: limits.send_packets };
        let receive =
            Rate { bytes_per_second: limits.receive_rate, packets_per_second: limits.receive_packets };
        NetSpec {
            mac: link.guest_mac,
            address: link.guest,
            prefix: link.prefix,
            gateway: link.host,
            gateway_mac: link.host_mac,
            mtu: self.mtu,
            limits: NetLimits { send, receive },
        }
    }
}

/// Where a VM of `pool` at the guest's end of `link` listens.
pub(super) fn address(pool: &Pool, link: &TapLink) -> SocketAddr {
    (link.link().guest, pool.port).into()
}

/// For `map_err`: names the part.
pub(super) fn prepare(what: &str, source: Box<dyn std::error::Error + Send + Sync>) -> StartError {
    StartError::Prepare { what: what.to_owned(), source }
}
