//! The sockets that weir listens on.
//!
//! They are bound before anything else happens, on the main thread and in the host's network namespace: the proxy's
//! threads live in a private namespace of weir's own, where no client could reach a socket.

use std::io;
use std::net::{SocketAddr, TcpListener};

use weir_config::model::Config;

/// Every socket of a configuration, bound and listening.
#[derive(Debug)]
pub struct Listeners {
    pub(crate) http: Vec<TcpListener>,
    admin: Option<TcpListener>,
}

/// Why a listening socket could not be had.
#[derive(Debug, thiserror::Error)]
#[error("bind {key} {address}{}", hint(.source))]
pub struct BindError {
    /// The configuration key that names the address.
    pub key: String,
    /// The address.
    pub address: SocketAddr,
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
    let http = config
        .listeners
        .iter()
        .enumerate()
        .map(|(index, listener)| bind_one(|| format!("listener[{index}].address"), listener.address))
        .collect::<Result<_, _>>()?;
    let admin = config
        .admin
        .as_ref()
        .map(|admin| bind_one(|| "admin.address".to_owned(), admin.address))
        .transpose()?;
    Ok(Listeners { http, admin })
}

/// Binds one socket more, as [`bind`] does it, in the calling thread's network namespace.
///
/// # Errors
///
/// If it cannot be bound.
pub fn bind_listener(address: SocketAddr) -> Result<TcpListener, BindError> {
    bind_one(|| "listener.address".to_owned(), address)
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
    pub fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        self.http.iter().map(TcpListener::local_addr).collect()
    }
}

fn bind_one(key: impl FnOnce() -> String, address: SocketAddr) -> Result<TcpListener, BindError> {
    TcpListener::bind(address)
        .and_then(|socket| socket.set_nonblocking(true).map(|()| socket))
        .map_err(|source| BindError { key: key(), address, source })
}

fn hint(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::PermissionDenied => " (ports below 1024 need CAP_NET_BIND_SERVICE)",
        io::ErrorKind::AddrInUse => " (another process listens there)",
        io::ErrorKind::AddrNotAvailable => " (no interface of this host has that address)",
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
        assert_ne!(listeners.addresses().unwrap()[0].port(), 0);
        assert!(listeners.take_admin().is_none());
    }
}
