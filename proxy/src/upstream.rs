//! Connections to VMs, and their end when the VM ends; and to servers outside, which are the same here.
//!
//! A guest's TCP is part of the guest. When a VM's process is killed nothing says so on its connections: no FIN, no
//! reset, only silence, and a request would wait for its timeout. weir knows better, because it waits for the process.
//! So every connection is known here by a second descriptor of its socket, and when the VM is gone all of them are shut
//! down: whoever reads gets an end of file at once, and the request can go to another VM. pingora owns the connection
//! and tells its end through the stream's tracer, which gives up the second descriptor.
//!
//! Where requests or connections are isolated, no connection to a VM outlives the tenancy that it was made for. It is
//! aborted (RST, without a FIN's leave-taking) before the VM is reset, so that neither the next generation of the guest
//! gets what was meant for the one before, nor weir an answer of the one before; and weir keeps no TIME-WAIT of each
//! request, of which there would soon be one for every local port.

mod bridge;
mod h2c;
mod links;
mod pace;
mod websocket;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use pingora::upstreams::peer::HttpPeer;
use tokio::sync::watch;
use weir_config::model::{Isolation, Protocol};
use weir_pool::{Lease, Pool};

pub(crate) use pace::Pace;

use crate::serve::Timeouts;
pub(crate) use links::Cut;
use links::{Connector, Links};

/// The VMs that requests were sent to and that are not gone yet.
#[derive(Debug)]
pub(crate) struct Upstreams {
    by_vm: ArcSwap<HashMap<u64, Arc<Peers>>>,
    timeouts: Timeouts,
    /// Whether WebSockets are to end.
    leaving: watch::Sender<bool>,
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

/// How long a VM may be silent, where that is the request's to say.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Silence {
    /// While a body is sent over HTTP/2, which may take long.
    pub(crate) during_body: Duration,
    /// What is left of the request's time.
    pub(crate) at_most: Option<Duration>,
}

/// One VM, as pingora is told of it.
#[derive(Debug)]
struct Peers {
    exchange: HttpPeer,
    duplex: HttpPeer,
    protocol: Protocol,
    links: Arc<Links>,
}

impl Upstreams {
    pub(crate) fn new(timeouts: Timeouts) -> Arc<Self> {
        Arc::new(Self { by_vm: ArcSwap::default(), timeouts, leaving: watch::Sender::new(false) })
    }

    /// Ends all WebSockets, those to come included: both their ends are told that weir goes down.
    pub(crate) fn leave(&self) {
        self.leaving.send_replace(true);
    }

    /// How to reach the VM of a lease, which may be silent as long as `silence` says.
    pub(crate) fn peer(
        self: &Arc<Self>,
        lease: &Lease,
        pool: &Pool,
        traffic: Traffic,
        silence: Silence,
    ) -> Box<HttpPeer> {
        let vm = lease.vm().0;
        let known = self.by_vm.load().get(&vm).cloned();
        known.unwrap_or_else(|| self.add(vm, lease, pool)).get(lease, traffic, silence)
    }

    /// How fast a body may be sent on a connection to `vm`; `None` for connections without a bridge.
    pub(crate) fn pace(&self, vm: u64, fd: RawFd) -> Option<Pace> {
        self.by_vm.load().get(&vm)?.links.pace(fd)
    }

    /// How to end a connection to `vm` before its time.
    pub(crate) fn cut(&self, vm: u64, fd: RawFd) -> Option<Cut> {
        self.by_vm.load().get(&vm)?.links.cut_of(fd)
    }

    fn add(self: &Arc<Self>, vm: u64, lease: &Lease, pool: &Pool) -> Arc<Peers> {
        let (isolation, protocol) = (pool.isolation(), pool.config().protocol);
        let links = Arc::new(Links::new(
            lease.network(),
            self.timeouts,
            isolation != Isolation::Vm,
            self.leaving.subscribe(),
        ));
        let peer = |bridged| {
            let connector = Connector { links: Arc::clone(&links), bridged };
            self.new_peer(lease.address(), isolation, protocol, connector)
        };
        let (exchange, duplex) = (peer(false), peer(protocol == Protocol::H1));
        let added = Arc::new(Peers { exchange, duplex, protocol, links: Arc::clone(&links) });
        let before = self.by_vm.rcu(|by_vm| {
            let mut by_vm = HashMap::clone(by_vm);
            by_vm.entry(vm).or_insert_with(|| Arc::clone(&added));
            by_vm
        });
        if let Some(earlier) = before.get(&vm) {
            return Arc::clone(earlier);
        }
        // This lease is held, so no tenancy ends before the hook is there.
        let aborted = Arc::clone(&links);
        lease.before_reset(move || aborted.abort());
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

    fn new_peer(
        &self,
        address: SocketAddr,
        isolation: Isolation,
        protocol: Protocol,
        connector: Connector,
    ) -> HttpPeer {
        let mut peer = HttpPeer::new(address, false, String::new());
        // pingora does not use the end of a bridge again: it is not connected to the VM's address.
        let kept = !connector.bridged && isolation != Isolation::Request;
        peer.options.idle_timeout = Some(if kept { self.timeouts.idle } else { Duration::ZERO });
        peer.options.custom_l4 = Some(Arc::new(connector));
        peer.options.read_timeout = Some(self.timeouts.read);
        peer.options.write_timeout = Some(self.timeouts.write);
        if protocol == Protocol::H2c {
            h2c::speak(&mut peer.options);
        }
        peer
    }
}

impl Peers {
    fn get(&self, lease: &Lease, traffic: Traffic, silence: Silence) -> Box<HttpPeer> {
        let large = traffic != Traffic::Exchange;
        let mut peer = Box::new(if large { &self.duplex } else { &self.exchange }.clone());
        // One connection takes all that is asked in HTTP/2.
        peer.group_key = group_key(lease, large && self.protocol == Protocol::H1);
        match self.protocol {
            // The bridge sees to it, see [`pace`].
            Protocol::H1 if traffic == Traffic::Tunnel => peer.options.read_timeout = None,
            Protocol::H1 => {}
            // The limit holds while the request is sent, too.
            Protocol::H2c => {
                let usual = if large { Some(silence.during_body) } else { peer.options.read_timeout };
                peer.options.read_timeout = usual.into_iter().chain(silence.at_most).min();
            }
        }
        peer
    }
}

/// Of the connections that may be used one after another: an address is used by one VM after another, and a VM by one
/// tenancy after another; a connection must not be. The VM's number counts from one, and the generation has 29 bits.
fn group_key(lease: &Lease, bridged: bool) -> u64 {
    (lease.vm().0 << 29 | u64::from(lease.generation())) << 1 | u64::from(bridged)
}
