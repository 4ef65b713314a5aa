//! Serving from the first accept to the last response.
//!
//! ```text
//!  serving --shutdown--> draining: no accepts, idle connections closed, responses say `Connection: close`
//!     |                     ^ |  no request under way, or the deadline: WebSockets are told (1001), and have a moment
//!     | others accept now   | v
//!     +---> leaving --------+ Drained
//! ```
//!
//! Leaving, idle connections are not closed yet: each may bring one request more, until all are gone or the deadline.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Release};
use std::time::Duration;

use arc_swap::ArcSwap;
use pingora::apps::ServerApp as _;
use pingora::proxy::{HttpProxy, http_proxy};
use pingora::server::configuration::ServerConf;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use weir_config::model::{Config, Listener};
use weir_pool::Pools;

use crate::access_log::AccessLog;
use crate::acme::Challenges;
use crate::doors::{Doors, NewDoor};
use crate::downstream::Entrance;
use crate::follow::follow;
use crate::http2;
use crate::in_flight::InFlight;
use crate::listeners::{ListenSocket, Listeners};
use crate::metrics::Metrics;
use crate::otlp::Spans;
use crate::proxy::Proxy;
use crate::reload::{Order, Orders, Reload, reloader};
use crate::retry::RETRIES_MAX;
use crate::table::Table;
use crate::tls::TlsError;

/// How long the ends of WebSockets may take to hear that weir goes down.
const LEAVE: Duration = Duration::from_secs(1);

/// How long a connection that was accepted may take to count as one: its task has yet to run.
const BEGIN: Duration = Duration::from_millis(100);

/// Idle connections to VMs that are kept, all VMs together.
const IDLE_UPSTREAMS: usize = 4096;

/// How long the proxy waits for what.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// For a VM's application to accept a connection.
    pub connect: Duration,
    /// For the next byte from a VM, the response's first one included, once the request's last byte has been sent.
    /// Tunnelled streams (WebSocket) may be silent for longer.
    pub read: Duration,
    /// For a VM, or a client, to take more bytes.
    pub write: Duration,
    /// For the next use of a connection to a VM. Whole seconds.
    pub idle: Duration,
    /// For requests under way to end when weir drains.
    pub drain: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(1),
            read: Duration::from_secs(60),
            write: Duration::from_secs(60),
            idle: Duration::from_secs(60),
            drain: Duration::from_secs(30),
        }
    }
}

/// What serving needs.
#[derive(Debug)]
pub struct Server {
    /// Whose routes are served.
    pub config: Arc<Config>,
    /// The sockets, bound from the same configuration.
    pub listeners: Listeners,
    /// The pools of the same configuration, started.
    pub pools: Pools,
    /// Where requests are counted.
    pub metrics: Metrics,
    /// Where requests are written down.
    pub access_log: AccessLog,
    /// Where spans of requests go; `None`: nowhere. See [`crate::otlp`].
    pub spans: Option<Spans>,
    /// What CAs may ask for, where certificates are obtained; see [`crate::acme`].
    pub challenges: Challenges,
    /// How long to wait for what.
    pub timeouts: Timeouts,
}

/// How a drain ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// Requests that were still under way at the deadline.
    pub unfinished: usize,
}

/// Why weir does not serve (any more).
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A route's pool was not started.
    #[error("route {route}: no pool {pool}")]
    NoPool {
        /// The route.
        route: String,
        /// What it calls its pool.
        pool: String,
    },
    /// A listener's TLS cannot be had.
    #[error("{key}")]
    Tls {
        /// The configuration's key.
        key: String,
        /// Why not.
        source: TlsError,
    },
    /// A route's fixed answer cannot be made.
    #[error("route {route}: make its answer")]
    Answer {
        /// The route.
        route: String,
        /// Why.
        source: Box<pingora::Error>,
    },
    /// There is no descriptor left for a listener's socket.
    #[error("take a listener's socket")]
    Socket(#[source] std::io::Error),
    /// The accept loops ended by themselves.
    #[error("accept loops ended")]
    Ended(#[source] Option<tokio::task::JoinError>),
}

/// Serves HTTP in the calling tokio runtime until `shutdown` becomes true or its sender is dropped, and then
/// drains. Every listening socket is closed when this returns.
///
/// # Errors
///
/// If serving is not possible. Nothing is left running then.
pub async fn serve(server: Server, shutdown: watch::Receiver<bool>) -> Result<Drained, ServeError> {
    serve_reloadable(server, reloader().1, shutdown).await
}

/// As [`serve`], but the configuration becomes another one whenever the [`crate::Reloader`] of `orders` says so.
///
/// # Errors
///
/// As [`serve`].
pub async fn serve_reloadable(
    server: Server,
    mut orders: Orders,
    mut shutdown: watch::Receiver<bool>,
) -> Result<Drained, ServeError> {
    let in_flight = InFlight::new(server.metrics.in_flight.clone());
    let draining = Arc::new(AtomicBool::new(false));
    let (drain_timeout, pools, metrics) =
        (server.timeouts.drain, server.pools.clone(), server.metrics.clone());
    let sockets = server.listeners.http.into_iter().map(Some);
    let entrances = new_doors(&server.config.listeners, sockets)?;
    let mut proxy = Proxy::new(
        &server.config,
        &server.pools,
        server.metrics,
        server.access_log,
        server.timeouts,
        in_flight.clone(),
        Arc::clone(&draining),
    )?;
    proxy.challenges = server.challenges.clone();
    proxy.spans = server.spans;
    let (unrouted, table, upstreams) =
        (Arc::clone(&proxy.unrouted), Arc::clone(&proxy.table), Arc::clone(&proxy.upstreams));
    let connections = unrouted.connections.clone();
    let proxy = Arc::new(with_options(proxy));
    let mut doors =
        Doors::new(Arc::clone(&proxy), unrouted, Arc::clone(&table), metrics.clone(), server.challenges);
    doors.change(&[], entrances).map_err(ServeError::Socket)?;
    // Dropped with this function, which ends it.
    let mut following = JoinSet::new();
    following.spawn(follow(Arc::clone(&table), &metrics));
    orders.opened();
    let leaving = loop {
        tokio::select! {
            failed = doors.failed() => return Err(ServeError::Ended(failed)),
            order = orders.next() => {
                match order {
                    Order::Change(reload) => change(reload, &mut doors, &table, &pools, &metrics),
                    Order::Show(shown) => drop(shown.send(doors.sockets())),
                    Order::Leave => break true,
                }
            }
            // An error means that whoever could have asked for it is gone.
            _ = shutdown.wait_for(|shutdown| *shutdown) => break false,
        }
    };
    // Whoever gives more is told that it is too late.
    drop(orders);
    draining.store(true, Release);
    let deadline = Instant::now() + drain_timeout;
    let closed = doors.close().await;
    if leaving {
        leave(&connections, deadline, shutdown).await;
    }
    // Idle connections are closed by this.
    proxy.cleanup().await;
    closed.map_err(|error| ServeError::Ended(Some(error)))?;
    // Whether it was in time shows in what is left.
    let _ = tokio::time::timeout_at(deadline, in_flight.none_left()).await;
    upstreams.leave();
    let _ = tokio::time::timeout(LEAVE, in_flight.none_left()).await;
    Ok(Drained { unfinished: in_flight.count() })
}

/// Serves by another configuration from now on, or by the same as before if that is not possible.
fn change(reload: Reload, doors: &mut Doors, table: &ArcSwap<Table>, pools: &Pools, metrics: &Metrics) {
    let Reload { config, listeners, done } = reload;
    let routes = Table::new(&config, pools, metrics, Some(&table.load()));
    let changed = routes.and_then(|routes| {
        doors.change(&listeners.closed, listeners.opened).map_err(ServeError::Socket)?;
        table.store(Arc::new(routes));
        Ok(())
    });
    // Whoever ordered it may have gone away meanwhile.
    drop(done.send(changed));
}

/// Waits until all connections are gone, the deadline, or until nobody is to be waited for any more.
async fn leave(connections: &InFlight, deadline: Instant, mut shutdown: watch::Receiver<bool>) {
    let gone = async {
        tokio::time::sleep(BEGIN).await;
        connections.none_left().await;
    };
    tokio::select! {
        _ = tokio::time::timeout_at(deadline, gone) => {}
        _ = shutdown.wait_for(|shutdown| *shutdown) => {}
    }
}

/// Listeners with what each of them asks of its clients.
pub(crate) fn new_doors(
    listeners: &[Listener],
    sockets: impl Iterator<Item = Option<ListenSocket>>,
) -> Result<Vec<NewDoor>, ServeError> {
    let new = |(index, (listener, socket)): (usize, (&Listener, Option<ListenSocket>))| {
        let tls = |source| ServeError::Tls { key: format!("listener[{index}].tls"), source };
        let entrance = Entrance::new(listener).map_err(tls)?;
        Ok(NewDoor { listener: listener.clone(), entrance, socket })
    };
    listeners.iter().zip(sockets).enumerate().map(new).collect()
}

fn with_options(proxy: Proxy) -> HttpProxy<Proxy> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let conf = ServerConf {
        threads,
        max_retries: 1 + RETRIES_MAX,
        // pingora multiplies by the threads.
        upstream_keepalive_pool_size: IDLE_UPSTREAMS.div_ceil(threads),
        ..ServerConf::default()
    };
    let mut proxy = http_proxy(&Arc::new(conf), proxy);
    // Of these, only whether CONNECT comes as far as the hooks is asked of the proxy itself.
    proxy.server_options = Some(http2::server_options(Duration::ZERO));
    proxy.h2_options = Some(http2::limits());
    proxy
}

#[cfg(test)]
mod tests;
