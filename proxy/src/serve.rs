//! Serving from the first accept to the last response.
//!
//! ```text
//!  serving --shutdown--> draining: no accepts, idle connections closed, responses say `Connection: close`
//!                           | no request under way, or the deadline
//!                           v
//!                         Drained
//! ```

use std::os::fd::IntoRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Release};
use std::time::Duration;

use parking_lot::Mutex;
use pingora::apps::HttpServerOptions;
use pingora::listeners::TcpSocketOptions;
use pingora::protocols::l4::ext::TcpKeepalive;
use pingora::proxy::http_proxy;
use pingora::server::configuration::ServerConf;
use pingora::server::{Fds, ListenFds};
use pingora::services::Service as _;
use pingora::services::listening::Service;
use tokio::sync::watch;
use weir_config::model::Config;
use weir_pool::Pools;

use crate::access_log::AccessLog;
use crate::downstream::Downstream;
use crate::in_flight::InFlight;
use crate::listeners::Listeners;
use crate::metrics::Metrics;
use crate::proxy::Proxy;
use crate::reload::{Orders, reloader};
use crate::retry::RETRIES_MAX;
use crate::table::Table;

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
    /// The accept loops ended by themselves.
    #[error("accept loops ended")]
    Ended(#[source] Option<tokio::task::JoinError>),
}

/// Serves HTTP/1.1 in the calling tokio runtime until `shutdown` becomes true or its sender is dropped, and then
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
    orders: Orders,
    shutdown: watch::Receiver<bool>,
) -> Result<Drained, ServeError> {
    serve_with(server, orders, shutdown, options()).await
}

fn options() -> HttpServerOptions {
    let mut options = HttpServerOptions::default();
    // Not to allow it, but to refuse it in the hooks.
    options.allow_connect_method_proxying = true;
    options
}

async fn serve_with(
    server: Server,
    mut orders: Orders,
    mut shutdown: watch::Receiver<bool>,
    options: HttpServerOptions,
) -> Result<Drained, ServeError> {
    let in_flight = InFlight::new(server.metrics.in_flight.clone());
    let draining = Arc::new(AtomicBool::new(false));
    let drain_timeout = server.timeouts.drain;
    let listeners = server.listeners;
    let (pools, metrics) = (server.pools.clone(), server.metrics.clone());
    let proxy = Proxy::new(
        &server.config,
        &server.pools,
        server.metrics,
        server.access_log,
        server.timeouts,
        in_flight.clone(),
        Arc::clone(&draining),
    )?;
    let table = Arc::clone(&proxy.table);
    let reload = |config: &Config| {
        table.store(Arc::new(Table::new(config, &pools, &metrics, Some(&table.load()))?));
        Ok(())
    };
    let (mut service, fds) = service(proxy, listeners, options);
    let (stop, stopped) = watch::channel(false);
    let mut accepting = tokio::spawn(async move { service.start_service(Some(fds), stopped, 1).await });
    loop {
        tokio::select! {
            ended = &mut accepting => return Err(ServeError::Ended(ended.err())),
            // Whoever ordered it may have gone away meanwhile.
            order = orders.next() => drop(order.done.send(reload(&order.config))),
            // An error means that whoever could have asked for it is gone.
            _ = shutdown.wait_for(|shutdown| *shutdown) => break,
        }
    }
    draining.store(true, Release);
    stop.send_replace(true);
    accepting.await.map_err(|error| ServeError::Ended(Some(error)))?;
    // Whether it was in time shows in what is left.
    let _ = tokio::time::timeout(drain_timeout, in_flight.none_left()).await;
    Ok(Drained { unfinished: in_flight.count() })
}

fn service(
    proxy: Proxy,
    listeners: Listeners,
    options: HttpServerOptions,
) -> (Service<Downstream>, ListenFds) {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let conf = ServerConf {
        threads,
        max_retries: 1 + RETRIES_MAX,
        // pingora multiplies by the threads.
        upstream_keepalive_pool_size: IDLE_UPSTREAMS.div_ceil(threads),
        ..ServerConf::default()
    };
    let unrouted = Arc::clone(&proxy.unrouted);
    let table = Arc::clone(&proxy.table);
    let mut proxy = http_proxy(&Arc::new(conf), proxy);
    proxy.server_options = Some(options);
    let mut service = Service::new("weir".to_owned(), Downstream::new(proxy, unrouted, table));
    let mut fds = Fds::new();
    for (index, socket) in listeners.http.into_iter().enumerate() {
        // pingora finds the socket by this name, and takes it over.
        let name = format!("listener[{index}]");
        fds.add(name.clone(), socket.into_raw_fd());
        service.add_tcp_with_settings(&name, client_socket_options());
    }
    (service, Arc::new(Mutex::new(fds)))
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
