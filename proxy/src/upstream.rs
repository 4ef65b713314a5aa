//! Connections to VMs, and their end when the VM ends.
//!
//! A guest's TCP is part of the guest. When a VM's process is killed nothing says so on its connections: no FIN, no
//! reset, only silence, and a request would wait for its timeout. weir knows better, because it waits for the process.
//! So every connection is known here by a second descriptor of its socket, and when the VM is gone all of them are shut
//! down: whoever reads gets an end of file at once, and the request can go to another VM. pingora owns the connection
//! and tells its end through the stream's tracer, which gives up the second descriptor.

mod bridge;

use std::collections::HashMap;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use parking_lot::Mutex;
use pingora::connectors::l4::Connect;
use pingora::protocols::l4::socket::SocketAddr as PeerAddress;
use pingora::protocols::l4::stream::Stream;
use pingora::upstreams::peer::{HttpPeer, Tracer, Tracing};
use pingora::{Error, ErrorType};
use tokio::sync::{oneshot, watch};
use weir_pool::Lease;

pub(crate) use bridge::Pace;

use crate::serve::Timeouts;

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

/// All connections to one VM; pingora makes them through this.
#[derive(Debug)]
struct Links {
    /// `None` when the VM is gone.
    open: Mutex<Option<OpenLinks>>,
    gone: watch::Sender<bool>,
    timeouts: Timeouts,
}

/// By the descriptor that pingora has.
type OpenLinks = HashMap<RawFd, Socket>;

#[derive(Debug)]
struct Socket {
    second: TcpStream,
    bridge: Option<Bridge>,
}

#[derive(Debug)]
struct Bridge {
    pace: Pace,
    /// Dropping it ends the bridge.
    _open: oneshot::Sender<()>,
}

#[derive(Debug)]
struct Connector {
    links: Arc<Links>,
    bridged: bool,
}

/// One connection's entry in its VM's [`Links`].
#[derive(Clone, Debug)]
struct Link {
    links: Arc<Links>,
    fd: RawFd,
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

impl Links {
    fn new(timeouts: Timeouts) -> Self {
        Self { open: Mutex::new(Some(OpenLinks::default())), gone: watch::Sender::new(false), timeouts }
    }

    async fn connect(self: &Arc<Self>, address: SocketAddr, bridged: bool) -> pingora::Result<Stream> {
        let mut gone = self.gone.subscribe();
        let connect = tokio::time::timeout(self.timeouts.connect, tokio::net::TcpStream::connect(address));
        let socket = tokio::select! {
            connected = connect => match connected {
                Ok(Ok(socket)) => socket,
                Ok(Err(error)) => return Err(connect_error(address, error)),
                Err(_) => return Error::e_explain(ErrorType::ConnectTimedout, format!("connect {address}")),
            },
            // An error would mean that the sender is gone, which `self` owns.
            _ = gone.wait_for(|gone| *gone) => return Err(vm_is_gone()),
        };
        let second =
            socket.as_fd().try_clone_to_owned().map_err(|error| own_trouble("duplicate socket", error))?;
        let second = TcpStream::from(second);
        let (mut stream, fd, bridge) = if bridged {
            let (open, closed) = oneshot::channel();
            let (end, pace) = bridge::bridge(socket, closed).map_err(|error| own_trouble("bridge", error))?;
            let fd = end.as_raw_fd();
            (Stream::from(end), fd, Some(Bridge { pace, _open: open }))
        } else {
            let fd = socket.as_raw_fd();
            (Stream::from(socket), fd, None)
        };
        self.open.lock().as_mut().ok_or_else(vm_is_gone)?.insert(fd, Socket { second, bridge });
        stream.tracer = Some(Tracer(Box::new(Link { links: Arc::clone(self), fd })));
        Ok(stream)
    }

    fn pace(&self, fd: RawFd) -> Option<Pace> {
        Some(self.open.lock().as_ref()?.get(&fd)?.bridge.as_ref()?.pace.clone())
    }

    /// The VM is gone: ends its connections, and lets no new one come into being.
    fn cut(&self) {
        self.gone.send_replace(true);
        let open = self.open.lock().take();
        for socket in open.into_iter().flat_map(|open| open.into_values()) {
            // Fails where the connection has ended already.
            drop(socket.second.shutdown(Shutdown::Both));
        }
    }
}

#[async_trait]
impl Connect for Connector {
    async fn connect(&self, address: &PeerAddress) -> pingora::Result<Stream> {
        match address.as_inet() {
            Some(address) => self.links.connect(*address, self.bridged).await,
            None => Error::e_explain(ErrorType::InternalError, "vm address is no inet address"),
        }
    }
}

impl Tracing for Link {
    fn on_connected(&self) {}

    fn on_disconnected(&self) {
        if let Some(open) = self.links.open.lock().as_mut() {
            open.remove(&self.fd);
        }
    }

    fn boxed_clone(&self) -> Box<dyn Tracing> {
        Box::new(self.clone())
    }
}

fn connect_error(address: SocketAddr, error: io::Error) -> Box<Error> {
    let kind = match error.kind() {
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => ErrorType::ConnectRefused,
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => ErrorType::ConnectNoRoute,
        io::ErrorKind::TimedOut => ErrorType::ConnectTimedout,
        // The kernel gave no socket: no descriptors, no memory, no port. Not the VM's doing.
        _ => ErrorType::InternalError,
    };
    Error::because(kind, format!("connect {address}"), error)
}

fn own_trouble(what: &'static str, error: io::Error) -> Box<Error> {
    Error::because(ErrorType::InternalError, what, error)
}

fn vm_is_gone() -> Box<Error> {
    Error::explain(ErrorType::ConnectError, "vm is gone")
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;

    use super::*;

    async fn pair(bridged: bool) -> (Arc<Links>, Stream, tokio::net::TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let links = Arc::new(Links::new(Timeouts::default()));
        let stream = links.connect(listener.local_addr().unwrap(), bridged).await.unwrap();
        let (peer, _) = listener.accept().await.unwrap();
        (links, stream, peer)
    }

    #[tokio::test]
    async fn a_silent_vm_s_end_ends_its_connections() {
        for bridged in [false, true] {
            let (links, mut stream, _silent) = pair(bridged).await;
            let reading = tokio::spawn(async move { stream.read(&mut [0; 16]).await });
            tokio::task::yield_now().await;
            assert!(!reading.is_finished());
            links.cut();
            assert_eq!(reading.await.unwrap().unwrap(), 0);
            let error = links.connect("127.0.0.1:9".parse().unwrap(), bridged).await.unwrap_err();
            assert!(matches!(error.etype(), ErrorType::ConnectError | ErrorType::ConnectRefused), "{error}");
        }
    }

    #[tokio::test]
    async fn a_closed_connection_is_closed_for_good() {
        for bridged in [false, true] {
            let (links, stream, mut peer) = pair(bridged).await;
            drop(stream);
            assert_eq!(peer.read(&mut [0; 16]).await.unwrap(), 0);
            assert!(links.open.lock().as_ref().unwrap().is_empty());
        }
    }
}
