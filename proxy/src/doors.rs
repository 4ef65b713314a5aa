//! The listeners that there are now.
//!
//! ```text
//!  open ──> accepting ──close──> closing: no accepts; its connections end with the response under way, or when they have
//!                                         been idle for their time
//! ```
//!
//! Each has pingora accept on a socket of its own; all have one proxy, and so the same connections to VMs. A second
//! descriptor of the socket stays here, so that another listener can take the address over without a moment in which
//! nobody listens.

use std::fs::Permissions;
use std::io;
use std::os::fd::{AsRawFd, IntoRawFd};
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use pingora::listeners::{L4BufferSettings, ListenerConfig, TcpSocketOptions};
use pingora::protocols::l4::ext::TcpKeepalive;
use pingora::proxy::HttpProxy;
use pingora::server::Fds;
use pingora::services::Service as _;
use pingora::services::listening::Service;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use weir_config::model::Listener;

use crate::acme::Challenges;
use crate::downstream::{Downstream, Entrance};
use crate::listeners::{ListenSocket, OpenSocket};
use crate::metrics::Metrics;
use crate::proxy::Proxy;
use crate::record::Unrouted;
use crate::table::Table;
use crate::tls::Tls;

/// See the module's documentation.
pub(crate) struct Doors {
    proxy: Arc<HttpProxy<Proxy>>,
    unrouted: Arc<Unrouted>,
    table: Arc<ArcSwap<Table>>,
    metrics: Metrics,
    challenges: Challenges,
    open: Vec<Door>,
    /// Each ends with its door's number.
    accepting: JoinSet<u64>,
    next: u64,
}

struct Door {
    number: u64,
    listener: Listener,
    socket: ListenSocket,
    tls: Option<Arc<Tls>>,
    close: watch::Sender<bool>,
    /// Reads its certificates again.
    _reading: JoinSet<()>,
}

/// A listener that is to be opened. `socket`: `None` where one of the same address is closed for it.
pub(crate) struct NewDoor {
    pub(crate) listener: Listener,
    pub(crate) entrance: Entrance,
    pub(crate) socket: Option<ListenSocket>,
}

impl std::fmt::Debug for NewDoor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewDoor").field("listener", &self.listener).finish_non_exhaustive()
    }
}

impl Doors {
    pub(crate) fn new(
        proxy: Arc<HttpProxy<Proxy>>,
        unrouted: Arc<Unrouted>,
        table: Arc<ArcSwap<Table>>,
        metrics: Metrics,
        challenges: Challenges,
    ) -> Self {
        let (open, accepting) = (Vec::new(), JoinSet::new());
        Self { proxy, unrouted, table, metrics, challenges, open, accepting, next: 0 }
    }

    /// Closes and opens these, and leaves the others alone.
    ///
    /// # Errors
    /// If there is no descriptor left for a socket, or a socket's file is gone. Those before it are open then, and none is closed.
    pub(crate) fn change(&mut self, closed: &[Listener], opened: Vec<NewDoor>) -> io::Result<()> {
        let mut closing = Vec::new();
        for gone in closed {
            // Of several with port 0 the latest.
            if let Some(at) = self.open.iter().rposition(|door| door.listener == *gone) {
                closing.push(self.open.remove(at));
            }
        }
        let opened = opened.into_iter().try_for_each(|new| {
            let former = closing.iter().find(|door| door.listener.address == new.listener.address);
            let socket = match (new.socket, former) {
                (Some(socket), _) => socket,
                (None, Some(former)) => {
                    former.socket.adapt(&new.listener)?;
                    if let (Some(tls), Some(former)) = (new.entrance.tls(), &former.tls) {
                        tls.take_over(former);
                    }
                    former.socket.try_clone()?
                }
                (None, None) => return Err(io::ErrorKind::NotFound.into()),
            };
            self.open_one(new.listener, new.entrance, socket)
        });
        match opened {
            Ok(()) => closing.iter().for_each(Door::close),
            Err(_) => self.open.append(&mut closing),
        }
        opened
    }

    fn open_one(&mut self, listener: Listener, entrance: Entrance, socket: ListenSocket) -> io::Result<()> {
        let accepting = socket.descriptor()?;
        let number = self.next;
        self.next += 1;
        let mut reading = JoinSet::new();
        let tls = entrance.tls().cloned();
        if let Some(tls) = &tls {
            tls.show(&self.challenges);
            reading.spawn(tls.reload_for_ever(&self.metrics));
        }
        let (proxy, unrouted) = (Arc::clone(&self.proxy), Arc::clone(&self.unrouted));
        let downstream = Downstream::new(proxy, unrouted, Arc::clone(&self.table), entrance);
        let mut service = Service::new("weir".to_owned(), downstream);
        // pingora finds the socket by this name, and takes it over.
        let name = match socket.is_unix() {
            // pingora gives what it names permissions again: here to the socket, which has no use for them.
            true => format!("/proc/self/fd/{}", accepting.as_raw_fd()),
            false => format!("door {number}"),
        };
        let mut fds = Fds::new();
        fds.add(name.clone(), accepting.into_raw_fd());
        let config = match socket.is_unix() {
            true => ListenerConfig::uds(&name).permissions(Permissions::from_mode(listener.mode)),
            false => ListenerConfig::tcp(&name).tcp_socket_options(client_socket_options()),
        };
        // Whoever reads has a buffer: pingora's 64 KiB in between would be most of what an idle connection takes.
        service.add_listener(config.l4_buffer(L4BufferSettings::default().read(0)));
        let (close, closing) = watch::channel(false);
        let fds = Arc::new(Mutex::new(fds));
        self.accepting.spawn(async move {
            service.start_service(Some(fds), closing, 1).await;
            number
        });
        self.open.push(Door { number, listener, socket, tls, close, _reading: reading });
        Ok(())
    }

    /// Those that are open, in the order in which they were opened.
    ///
    /// # Errors
    /// If there is no descriptor left.
    pub(crate) fn sockets(&self) -> io::Result<Vec<OpenSocket>> {
        let open = |door: &Door| {
            let address = door.listener.address.clone();
            door.socket.try_clone().map(|socket| OpenSocket { address, socket })
        };
        self.open.iter().map(open).collect()
    }

    /// Resolves when one that is not closed accepts no more, which it does not do by itself. Cancel-safe.
    pub(crate) async fn failed(&mut self) -> Option<JoinError> {
        while let Some(ended) = self.accepting.join_next().await {
            match ended {
                Ok(number) if self.open.iter().any(|door| door.number == number) => return None,
                Ok(_) => {}
                Err(error) => return Some(error),
            }
        }
        None
    }

    /// Closes all, and returns when nobody accepts any more and all sockets are closed.
    ///
    /// # Errors
    /// If one has panicked.
    pub(crate) async fn close(mut self) -> Result<(), JoinError> {
        self.open.drain(..).for_each(|door| door.close());
        while let Some(ended) = self.accepting.join_next().await {
            ended?;
        }
        Ok(())
    }
}

impl Door {
    fn close(&self) {
        self.close.send_replace(true);
    }
}

/// A client that vanished without a word is noticed within two minutes even on a silent tunnel.
fn client_socket_options() -> TcpSocketOptions {
    let mut options = TcpSocketOptions::default();
    options.tcp_keepalive = Some(TcpKeepalive {
        idle: Duration::from_secs(60),
        interval: Duration::from_secs(10),
        count: 6,
        user_timeout: Duration::ZERO,
    });
    options
}
