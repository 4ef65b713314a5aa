//! The seam between a pool and how what it has is reached.
//!
//! VMs are in weir's own network namespace, servers outside in the host's. Whoever connects, be it for a request or for
//! a health check, asks the pool's [`Network`] and need not know which.

use std::fmt;
use std::io;
use std::net::SocketAddr;

use futures::future::{BoxFuture, FutureExt};
use tokio::net::{TcpStream, lookup_host};

/// A network as pools need it.
pub trait Network: fmt::Debug + Send + Sync {
    /// A connection to `address`. Pending as long as nothing answers.
    fn connect(&self, address: SocketAddr) -> BoxFuture<'static, io::Result<TcpStream>>;

    /// The addresses that `name` has now, with this port. Pending as long as nothing answers.
    fn resolve(&self, name: &str, port: u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>>;
}

/// The network that the calling threads are in.
#[derive(Clone, Copy, Debug, Default)]
pub struct OwnNetwork;

impl Network for OwnNetwork {
    fn connect(&self, address: SocketAddr) -> BoxFuture<'static, io::Result<TcpStream>> {
        TcpStream::connect(address).boxed()
    }

    fn resolve(&self, name: &str, port: u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
        let name = name.to_owned();
        async move { Ok(lookup_host((name, port)).await?.collect()) }.boxed()
    }
}
