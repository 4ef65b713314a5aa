//! The sockets that weir listens on.
//!
//! They are bound before anything else happens, on the main thread and in the host's network namespace: the proxy's
//! threads live in a private namespace of weir's own, where no client could reach a socket.

mod handed;
mod unix;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::Path;

use weir_config::model::{Config, ListenAddress, Listener};

use self::unix::UnixSocket;

pub use self::handed::{Claim, Handed, OpenSocket, Role, bind_beside};

/// Every socket of a configuration, bound and listening.
#[derive(Debug)]
pub struct Listeners {
    pub(crate) http: Vec<ListenSocket>,
    admin: Option<TcpListener>,
}

/// A socket that clients reach.
#[derive(Debug)]
pub struct ListenSocket(Kind);

#[derive(Debug)]
enum Kind {
    Tcp(TcpListener),
    Unix(UnixSocket),
}

/// Why a listening socket could not be had.
#[derive(Debug, thiserror::Error)]
#[error("bind {key} {address}{}", hint(.address, .source))]
pub struct BindError {
    /// The configuration key that names the address.
    pub key: String,
    /// The address.
    pub address: ListenAddress,
    /// What the kernel said.
    pub source: io::Error,
}

/// Binds all sockets of `config` in the calling thread's network namespace: non-blocking, closed on exec, with
/// SO_REUSEADDR.
///
/// # Errors
///
/// The first address that cannot be bound.
pub fn bind(config: &Config) -> Result<Listeners, BindError> {
    bind_beside(config, Vec::new()).map(|(listeners, _)| listeners)
}

/// Binds one socket more, as [`bind`] does it, in the calling thread's network namespace.
///
/// # Errors
///
/// If it cannot be bound.
pub fn bind_listener(listener: &Listener) -> Result<ListenSocket, BindError> {
    bind_one(|| "listener.address".to_owned(), listener)
}

/// Whether a Unix socket could be bound to `path`. Nothing is changed.
///
/// # Errors
///
/// Why not.
pub fn can_bind_path(path: &Path) -> Result<(), BindError> {
    let directory = path.parent().unwrap_or(path);
    let looked = std::fs::metadata(directory).and_then(|directory| match directory.is_dir() {
        true => unix::is_stale(path).map(drop),
        false => Err(io::ErrorKind::NotADirectory.into()),
    });
    let address = || ListenAddress::Unix(path.to_owned());
    looked.map_err(|source| BindError { key: "listener.address".to_owned(), address: address(), source })
}

impl Listeners {
    /// The administration endpoint's socket, for [`crate::admin::serve`]; `None` if there is none or it was taken.
    pub fn take_admin(&mut self) -> Option<TcpListener> {
        self.admin.take()
    }

    /// Addresses that clients reach, with the ports that the kernel chose where the configuration said 0.
    ///
    /// # Errors
    ///
    /// As getsockname(2).
    pub fn addresses(&self) -> io::Result<Vec<ListenAddress>> {
        self.http.iter().map(ListenSocket::address).collect()
    }
}

impl ListenSocket {
    /// Where clients reach it, with the port that the kernel chose where the configuration said 0.
    ///
    /// # Errors
    ///
    /// As getsockname(2).
    pub fn address(&self) -> io::Result<ListenAddress> {
        match &self.0 {
            Kind::Tcp(socket) => socket.local_addr().map(ListenAddress::Ip),
            Kind::Unix(socket) => Ok(ListenAddress::Unix(socket.path().to_owned())),
        }
    }

    pub(crate) fn is_unix(&self) -> bool {
        matches!(self.0, Kind::Unix(_))
    }

    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        Ok(Self(match &self.0 {
            Kind::Tcp(socket) => Kind::Tcp(socket.try_clone()?),
            Kind::Unix(socket) => Kind::Unix(socket.try_clone()?),
        }))
    }

    /// Another descriptor of the socket alone.
    pub(crate) fn descriptor(&self) -> io::Result<OwnedFd> {
        Ok(match &self.0 {
            Kind::Tcp(socket) => socket.try_clone()?.into(),
            Kind::Unix(socket) => socket.socket.try_clone()?.into(),
        })
    }

    /// Makes it what `listener` says beside its address.
    ///
    /// # Errors
    ///
    /// If its file is there no more.
    pub(crate) fn adapt(&self, listener: &Listener) -> io::Result<()> {
        match &self.0 {
            Kind::Tcp(_) => Ok(()),
            Kind::Unix(socket) => socket.set_mode(listener.mode),
        }
    }
}

fn bind_one(key: impl FnOnce() -> String, listener: &Listener) -> Result<ListenSocket, BindError> {
    let bound = match &listener.address {
        ListenAddress::Ip(address) => bind_tcp(*address).map(Kind::Tcp),
        ListenAddress::Unix(path) => UnixSocket::bind(path, listener.mode).map(Kind::Unix),
    };
    let error = |source| BindError { key: key(), address: listener.address.clone(), source };
    bound.map(ListenSocket).map_err(error)
}

fn bind_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = TcpListener::bind(address)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn hint(address: &ListenAddress, source: &io::Error) -> &'static str {
    match (address, source.kind()) {
        (ListenAddress::Ip(_), io::ErrorKind::PermissionDenied) => {
            " (ports below 1024 need CAP_NET_BIND_SERVICE)"
        }
        (_, io::ErrorKind::AddrInUse) => " (another process listens there)",
        (_, io::ErrorKind::AddrNotAvailable) => " (no interface of this host has that address)",
        (ListenAddress::Unix(_), io::ErrorKind::NotFound) => " (its directory is not there)",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;
    use crate::testing::config;

    #[test]
    fn an_address_in_use_is_named_with_its_key() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let mut config = config();
        config.admin = Some(weir_config::model::Admin { address });
        let error = bind(&config).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("bind admin.address {address} (another process listens there)")
        );
        assert!(error.source().is_some());
    }

    #[test]
    fn port_zero_gets_a_port() {
        let mut listeners = bind(&config()).unwrap();
        assert_ne!(listeners.addresses().unwrap()[0].ip().unwrap().port(), 0);
        assert!(listeners.take_admin().is_none());
    }
}
