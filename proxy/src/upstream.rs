//! Connections to VMs, and their end when the VM ends.
//!
//! A guest's TCP is part of the guest. When a VM's process is killed nothing says so on its connections: no FIN, no
//! reset, only silence, and a request would wait for its timeout. weir knows better, because it waits for the process.
//! So every connection is known here by a second descriptor of its socket, and when the VM is gone all of them are shut
//! down: whoever reads gets an end of file at once, and the request can go to another VM. pingora owns the connection
//! and tells its end through the stream's tracer, which gives up the second descriptor.

mod bridge;
mod links;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use pingora::upstreams::peer::HttpPeer;
use weir_pool::Lease;

pub(crate) use bridge::Pace;

use crate::serve::Timeouts;
use links::{Connector, Links};

/// How long a tunnelled stream may be silent.
const TUNNEL_SILENCE: Duration = Duration::from_secs(3600);

/// The VMs that requests were sent to and that are not gone yet.
#[derive(Debug)]
pub(crate) struct Upstreams {
    by_vm: ArcSwap<HashMap<u64, Arc<Peers>>>,
    timeouts: Timeouts,
}

/// What a request needs of its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Traffic {
    /// A small request; the response may be of any size.
    Exchange,
    /// A large body, which the response may keep up with: both ways at once, see [`bridge`].
    Duplex,
    /// Duplex, and both may be silent for long.
    Tunnel,
}

/// One VM, as pingora is told of it.
#[derive(Debug)]
struct Peers {
    exchange: HttpPeer,
    duplex: HttpPeer,
    links: Arc<Links>,
}

impl Upstreams {
    pub(crate) fn new(timeouts: Timeouts) -> Arc<Self> {
        Arc::new(Self { by_vm: ArcSwap::default(), timeouts })
    }

    /// How to reach the VM of a lease.
    pub(crate) fn peer(self: &Arc<Self>, lease: &Lease, traffic: Traffic) -> Box<HttpPeer> {
        let vm = lease.vm().0;
        if let Some(peers) = self.by_vm.load().get(&vm) {
            return peers.get(traffic);
        }
        self.add(vm, lease).get(traffic)
    }

    /// How fast a body may be sent on a connection to `vm`; `None` for connections without a bridge.
    pub(crate) fn pace(&self, vm: u64, fd: RawFd) -> Option<Pace> {
        self.by_vm.load().get(&vm)?.links.pace(fd)
    }

    fn add(self: &Arc<Self>, vm: u64, lease: &Lease) -> Arc<Peers> {
        let links = Arc::new(Links::new(self.timeouts));
        let peer =
            |bridged| self.new_peer(vm, lease.address(), Connector { links: Arc::clone(&links), bridged });
        let added = Arc::new(Peers { exchange: peer(false), duplex: peer(true), links: Arc::clone(&links) });
        let before = self.by_vm.rcu(|by_vm| {
            let mut by_vm = HashMap::clone(by_vm);
            by_vm.entry(vm).or_insert_with(|| Arc::clone(&added));
            by_vm
        });
        if let Some(earlier) = before.get(&vm) {
            return Arc::clone(earlier);
        }
        let (upstreams, gone) = (Arc::clone(self), lease.gone());
        tokio::spawn(async move {
            gone.await;
            upstreams.remove(vm);
            links.cut();
        });
        added
    }

    fn remove(&self, vm: u64) {
        self.by_vm.rcu(|by_vm| {
            let mut by_vm = HashMap::clone(by_vm);
            by_vm.remove(&vm);
            by_vm
        });
    }

    fn new_peer(&self, vm: u64, address: SocketAddr, connector: Connector) -> HttpPeer {
        let mut peer = HttpPeer::new(address, false, String::new());
        // An address is used by one VM after another; a connection must not be.
        peer.group_key = vm << 1 | u64::from(connector.bridged);
        // pingora does not use the end of a bridge again: it is not connected to the VM's address.
        peer.options.idle_timeout = Some(if connector.bridged { Duration::ZERO } else { self.timeouts.idle });
        peer.options.custom_l4 = Some(Arc::new(connector));
        peer.options.read_timeout = Some(self.timeouts.read);
        peer.options.write_timeout = Some(self.timeouts.write);
        peer
    }
}

impl Peers {
    fn get(&self, traffic: Traffic) -> Box<HttpPeer> {
        let mut peer = Box::new(match traffic {
            Traffic::Exchange => self.exchange.clone(),
            Traffic::Duplex | Traffic::Tunnel => self.duplex.clone(),
        });
        if traffic == Traffic::Tunnel {
            peer.options.read_timeout = Some(TUNNEL_SILENCE);
        }
        peer
    }
}
