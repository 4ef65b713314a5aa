//! What depends on the machine: addresses that can be bound, images that are there.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener};

use crate::error::ConfigError;
use crate::key::suggestion;
use crate::model::{Config, Pool};

/// Holds a configuration against this machine: binds every address and lets go of it again, opens every image that
/// is not among the `embedded` ones. A weir that already runs with the same configuration is in the way of that.
pub fn check_host(config: &Config, embedded: &[&str]) -> Vec<ConfigError> {
    let listeners = config.listeners.iter().enumerate();
    let listeners = listeners.map(|(i, listener)| (format!("listener[{i}].address"), listener.address));
    let admin = config.admin.iter().map(|admin| ("admin.address".to_owned(), admin.address));
    let addresses = listeners.chain(admin).filter_map(|(key, address)| {
        check_address(address).err().map(|message| ConfigError { location: None, key, message })
    });
    let images = config.pools.values().filter_map(|pool| {
        let key = format!("pool.{}.image", pool.name);
        check_image(pool, embedded).err().map(|message| ConfigError { location: None, key, message })
    });
    addresses.chain(images).collect()
}

fn check_address(address: SocketAddr) -> Result<(), String> {
    TcpListener::bind(address).map(drop).map_err(|error| match error.kind() {
        ErrorKind::AddrInUse => format!("{address} is in use"),
        ErrorKind::AddrNotAvailable => format!("{address} is not an address of this machine"),
        ErrorKind::PermissionDenied => format!("{address} may not be bound by this user"),
        _ => format!("{address} cannot be bound: {error}"),
    })
}

/// An embedded name goes before a file of the same name; `./hello` is always a file.
fn check_image(pool: &Pool, embedded: &[&str]) -> Result<(), String> {
    let image = &pool.image;
    if embedded.contains(&image.as_str()) {
        return Ok(());
    }
    match is_file(image) {
        Ok(true) => Ok(()),
        Ok(false) => Err(format!("{image:?} is no regular file")),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let near = suggestion(image, embedded.iter().copied());
            Err(format!("{image:?} is neither a file nor an embedded image{near}"))
        }
        Err(error) => Err(format!("{image:?} cannot be read: {error}")),
    }
}

/// Asked before opening: to open a FIFO would wait for its other end.
fn is_file(path: &str) -> io::Result<bool> {
    if !std::fs::metadata(path)?.is_file() {
        return Ok(false);
    }
    File::open(path).map(|_| true)
}
