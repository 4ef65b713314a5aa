//! The connections to one VM.
//!
//! ```text
//!  pingora --connect--> Connector --> Links: TCP, or a bridge to it; a second descriptor is kept
//!  pingora drops the stream --tracer--> the second descriptor is closed, and with it the bridge
//!  the tenancy ends --abort--> all connections are reset, those of pingora's included (isolated VMs only)
//!  the VM is gone --cut--> all second descriptors are shut down; no connection is made any more
//! ```

use std::collections::HashMap;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use async_trait::async_trait;
use parking_lot::Mutex;
use pingora::connectors::l4::Connect;
use pingora::protocols::l4::socket::SocketAddr as PeerAddress;
use pingora::protocols::l4::stream::Stream;
use pingora::upstreams::peer::{Tracer, Tracing};
use pingora::{Error, ErrorType};
use rustix::net::connect_unspec;
use tokio::sync::{oneshot, watch};
use weir_pool::Network;

use super::bridge;
use super::pace::Pace;
use crate::serve::Timeouts;

/// All connections to one VM.
#[derive(Debug)]
pub(super) struct Links {
    /// `None` when the VM is gone.
    open: Mutex<Option<OpenLinks>>,
    /// Connections so far.
    made: AtomicU64,
    gone: watch::Sender<bool>,
    /// Where the VM is.
    network: Arc<dyn Network>,
    timeouts: Timeouts,
    /// Connections end with a reset.
    isolated: bool,
    /// Whether WebSockets are to end.
    leaving: watch::Receiver<bool>,
}

/// By the descriptor that pingora has.
type OpenLinks = HashMap<RawFd, Socket>;

#[derive(Debug)]
struct Socket {
    /// Tells it from those that have had its descriptor before.
    number: u64,
    second: TcpStream,
    bridge: Option<Bridge>,
}

#[derive(Debug)]
struct Bridge {
    pace: Pace,
    /// Dropping it ends the bridge.
    _open: oneshot::Sender<()>,
}

/// How pingora makes connections to one VM.
#[derive(Debug)]
pub(super) struct Connector {
    pub(super) links: Arc<Links>,
    pub(super) bridged: bool,
}

/// One connection's entry in its VM's [`Links`].
#[derive(Clone, Debug)]
struct Link {
    links: Arc<Links>,
    fd: RawFd,
}

/// Ends one connection before its time.
#[derive(Debug)]
pub(crate) struct Cut {
    links: Arc<Links>,
    fd: RawFd,
    number: u64,
}

impl Cut {
    /// If it is still there.
    pub(crate) fn cut(&self) {
        let open = self.links.open.lock();
        let socket = open.as_ref().and_then(|open| open.get(&self.fd));
        if let Some(socket) = socket.filter(|socket| socket.number == self.number) {
            // Fails where the connection has ended already.
            drop(socket.second.shutdown(Shutdown::Both));
        }
    }
}

impl Links {
    /// `isolated`: connections do not outlive a tenancy, and end with a reset.
    pub(super) fn new(
        network: Arc<dyn Network>,
        timeouts: Timeouts,
        isolated: bool,
        leaving: watch::Receiver<bool>,
    ) -> Self {
        let open = Mutex::new(Some(OpenLinks::default()));
        let made = AtomicU64::new(0);
        Self { open, made, gone: watch::Sender::new(false), network, timeouts, isolated, leaving }
    }

    async fn connect(self: &Arc<Self>, address: SocketAddr, bridged: bool) -> pingora::Result<Stream> {
        let mut gone = self.gone.subscribe();
        let connect = tokio::time::timeout(self.timeouts.connect, self.network.connect(address));
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
            let (end, pace) = bridge::bridge(socket, closed, self.leaving.clone())
                .map_err(|error| own_trouble("bridge", error))?;
            let fd = end.as_raw_fd();
            (Stream::from(end), fd, Some(Bridge { pace, _open: open }))
        } else {
            let fd = socket.as_raw_fd();
            (Stream::from(socket), fd, None)
        };
        let number = self.made.fetch_add(1, Relaxed);
        self.open.lock().as_mut().ok_or_else(vm_is_gone)?.insert(fd, Socket { number, second, bridge });
        stream.tracer = Some(Tracer(Box::new(Link { links: Arc::clone(self), fd })));
        Ok(stream)
    }

    pub(super) fn pace(&self, fd: RawFd) -> Option<Pace> {
        Some(self.open.lock().as_ref()?.get(&fd)?.bridge.as_ref()?.pace.clone())
    }

    pub(super) fn cut_of(self: &Arc<Self>, fd: RawFd) -> Option<Cut> {
        let number = self.open.lock().as_ref()?.get(&fd)?.number;
        Some(Cut { links: Arc::clone(self), fd, number })
    }

    /// The tenancy has ended: resets its connections. They are all there are, since a VM has one tenancy at a time and
    /// whoever connects holds a lease of it.
    pub(super) fn abort(&self) {
        let ended = self.open.lock().as_mut().map(std::mem::take);
        ended.into_iter().flat_map(OpenLinks::into_values).for_each(Socket::abort);
    }

    /// The VM is gone: ends its connections, and lets no new one come into being.
    pub(super) fn cut(&self) {
        self.gone.send_replace(true);
        let open = self.open.lock().take();
        for socket in open.into_iter().flat_map(|open| open.into_values()) {
            // Fails where the connection has ended already.
            drop(socket.second.shutdown(Shutdown::Both));
        }
    }
}

impl Socket {
    /// Resets the connection, whoever has descriptors of it; what is under way is lost.
    fn abort(self) {
        // Fails where the connection has ended already.
        let _ = connect_unspec(&self.second);
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
        let ended = self.links.open.lock().as_mut().and_then(|open| open.remove(&self.fd));
        if self.links.isolated {
            ended.into_iter().for_each(Socket::abort);
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
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use weir_pool::OwnNetwork;

    use super::*;

    async fn pair(bridged: bool, isolated: bool) -> (Arc<Links>, Stream, tokio::net::TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let links = Arc::new(Links::new(
            Arc::new(OwnNetwork),
            Timeouts::default(),
            isolated,
            watch::channel(false).1,
        ));
        let stream = links.connect(listener.local_addr().unwrap(), bridged).await.unwrap();
        let (peer, _) = listener.accept().await.unwrap();
        (links, stream, peer)
    }

    #[tokio::test]
    async fn a_silent_vm_s_end_ends_its_connections() {
        for bridged in [false, true] {
            let (links, mut stream, _silent) = pair(bridged, false).await;
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
            let (links, stream, mut peer) = pair(bridged, false).await;
            drop(stream);
            assert_eq!(peer.read(&mut [0; 16]).await.unwrap(), 0);
            assert!(links.open.lock().as_ref().unwrap().is_empty());
        }
    }

    #[tokio::test]
    async fn a_tenancy_s_end_resets_its_connections_whoever_has_them() {
        for bridged in [false, true] {
            let (links, mut kept, mut vm) = pair(bridged, true).await;
            kept.write_all(b"what the vm has not read is lost with it").await.unwrap();
            vm.write_all(b"and so is what it said").await.unwrap();
            links.abort();
            let reset = vm.read_to_end(&mut Vec::new()).await.unwrap_err();
            assert_eq!(reset.kind(), io::ErrorKind::ConnectionReset);
            // A bridge may have taken it over already.
            let read = kept.read_to_end(&mut Vec::new()).await;
            assert!(bridged || read.is_err(), "{read:?}");
            assert!(links.open.lock().as_ref().unwrap().is_empty());
            // The next tenancy's.
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            links.connect(listener.local_addr().unwrap(), bridged).await.unwrap();
        }
    }

    #[tokio::test]
    async fn an_isolated_vm_s_connection_is_reset_when_pingora_drops_it() {
        for bridged in [false, true] {
            let (_links, stream, mut vm) = pair(bridged, true).await;
            drop(stream);
            let reset = vm.read(&mut [0; 16]).await.unwrap_err();
            assert_eq!(reset.kind(), io::ErrorKind::ConnectionReset);
        }
    }
}
