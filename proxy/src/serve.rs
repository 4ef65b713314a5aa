//! Serving from the first accept to the last response.
//!
//! ```text
//!  serving --shutdown--> draining: no accepts, idle connections closed, responses say `Connection: close`
//!                           | no request under way, or the deadline
//!                           v
//!                         Drained
//! ```

use std::net::TcpListener;
use std::os::fd::IntoRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Release};
use std::time::Duration;

use parking_lot::Mutex;
use pingora::listeners::TcpSocketOptions;
use pingora::protocols::l4::ext::TcpKeepalive;
use pingora::proxy::http_proxy;
use pingora::server::configuration::ServerConf;
use pingora::server::{Fds, ListenFds};
use pingora::services::Service as _;
use pingora::services::listening::Service;
use tokio::sync::watch;
use tokio::task::JoinSet;
use weir_config::model::Config;
use weir_pool::Pools;

use crate::access_log::AccessLog;
use crate::downstream::{Downstream, Entrance};
use crate::http2;
use crate::in_flight::InFlight;
use crate::listeners::Listeners;
use crate::metrics::Metrics;
use crate::proxy::Proxy;
use crate::retry::RETRIES_MAX;
use crate::tls::TlsError;

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
    /// For a client's next request on a connection, and for the next use of a connection to a VM. Whole seconds.
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
pub async fn serve(server: Server, mut shutdown: watch::Receiver<bool>) -> Result<Drained, ServeError> {
    let in_flight = InFlight::new(server.metrics.in_flight.clone());
    let draining = Arc::new(AtomicBool::new(false));
    let drain_timeout = server.timeouts.drain;
    let entrances = entrances(&server.config)?;
    // Ends with this function, and with it the reading.
    let mut reloading = JoinSet::new();
    for tls in entrances.iter().filter_map(Entrance::tls) {
        reloading.spawn(tls.reload_for_ever(&server.metrics));
    }
    let idle_timeout = server.timeouts.idle;
    let proxy = Proxy::new(
        &server.config,
        &server.pools,
        server.metrics,
        server.access_log,
        server.timeouts,
        in_flight.clone(),
        Arc::clone(&draining),
    )?;
    let (services, fds) = services(proxy, server.listeners, entrances, idle_timeout);
    let (stop, stopped) = watch::channel(false);
    let mut accepting = JoinSet::new();
    for mut service in services {
        let (fds, stopped) = (Arc::clone(&fds), stopped.clone());
        accepting.spawn(async move { service.start_service(Some(fds), stopped, 1).await });
    }
    tokio::select! {
        ended = accepting.join_next() => return Err(ServeError::Ended(ended.and_then(Result::err))),
        // An error means that whoever could have asked for it is gone.
        _ = shutdown.wait_for(|shutdown| *shutdown) => {}
    }
    draining.store(true, Release);
    stop.send_replace(true);
    while let Some(ended) = accepting.join_next().await {
        ended.map_err(|error| ServeError::Ended(Some(error)))?;
    }
    // Whether it was in time shows in what is left.
    let _ = tokio::time::timeout(drain_timeout, in_flight.none_left()).await;
    Ok(Drained { unfinished: in_flight.count() })
}

/// Of each listener, in the configuration's order.
fn entrances(config: &Config) -> Result<Vec<Entrance>, ServeError> {
    let entrance = |(index, listener)| {
        Entrance::new(listener)
            .map_err(|source| ServeError::Tls { key: format!("listener[{index}].tls"), source })
    };
    config.listeners.iter().enumerate().map(entrance).collect()
}

/// One for each listener; all have the same connections to VMs.
fn services(
    proxy: Proxy,
    listeners: Listeners,
    entrances: Vec<Entrance>,
    idle_timeout: Duration,
) -> (Vec<Service<Downstream>>, ListenFds) {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let conf = ServerConf {
        threads,
        max_retries: 1 + RETRIES_MAX,
        // pingora multiplies by the threads.
        upstream_keepalive_pool_size: IDLE_UPSTREAMS.div_ceil(threads),
        ..ServerConf::default()
    };
    let unrouted = Arc::clone(&proxy.unrouted);
    let stays = proxy.isolates_connections();
    let mut proxy = http_proxy(&Arc::new(conf), proxy);
    proxy.server_options = Some(http2::server_options(idle_timeout));
    proxy.h2_options = Some(http2::limits());
    let proxy = Arc::new(proxy);
    let mut fds = Fds::new();
    let service = |(index, (socket, entrance)): (usize, (TcpListener, Entrance))| {
        // pingora finds the socket by this name, and takes it over.
        let name = format!("listener[{index}]");
        fds.add(name.clone(), socket.into_raw_fd());
        let downstream = Downstream::new(Arc::clone(&proxy), Arc::clone(&unrouted), stays, entrance);
        let mut service = Service::new("weir".to_owned(), downstream);
        service.add_tcp_with_settings(&name, client_socket_options());
        service
    };
    let services = listeners.http.into_iter().zip(entrances).enumerate().map(service).collect();
    (services, Arc::new(Mutex::new(fds)))
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

#[cfg(test)]
mod tests;
