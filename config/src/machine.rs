//! What depends on the machine: addresses that can be bound, images and certificates that are there.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use crate::acme::AcmeSection;
use crate::error::Sink;
use crate::key::{Located, suggestion};
use crate::listener::ListenerSection;
use crate::model::{Certificate, ListenAddress};
use crate::otlp::OtlpSection;
use crate::pool::PoolSection;

/// What a configuration is held against besides its own rules.
pub trait Machine {
    /// Whether `address` can be listened on.
    ///
    /// # Errors
    /// Why not.
    fn address(&self, address: &ListenAddress) -> Result<(), String>;

    /// Whether `image`, an embedded image's name or a path, can become a VM.
    ///
    /// # Errors
    /// Why not.
    fn image(&self, image: &str) -> Result<(), String>;

    /// Whether these files are a certificate that a server can show, and its key.
    ///
    /// # Errors
    /// Why not, with the file that is to blame.
    fn certificate(&self, files: &Certificate) -> Result<(), String>;

    /// Whether this file has certificates that others' certificates can lead to: clients', or a CA's own.
    ///
    /// # Errors
    /// Why not, with the file's name.
    fn client_ca(&self, file: &Path) -> Result<(), String>;
}

pub(crate) fn check_addresses<'a>(
    addresses: impl Iterator<Item = &'a Located<ListenAddress>>,
    machine: &dyn Machine,
    sink: &Sink,
) {
    for address in addresses {
        if let Err(message) = machine.address(&address.value) {
            sink.report(&address.place, message);
        }
    }
}

pub(crate) fn check_certificates(listeners: &[ListenerSection], machine: &dyn Machine, sink: &Sink) {
    for files in listeners.iter().flat_map(|listener| listener.tls.files()) {
        if let Err(message) = machine.certificate(&files.value) {
            sink.report(&files.place, message);
        }
    }
    for file in listeners.iter().filter_map(|listener| listener.tls.client_ca.as_ref()).flatten() {
        if let Err(message) = machine.client_ca(&file.value) {
            sink.report(&file.place, message);
        }
    }
}

pub(crate) fn check_acme(acme: Option<&AcmeSection>, machine: &dyn Machine, sink: &Sink) {
    check_roots(acme.and_then(|acme| acme.ca.as_ref()?.as_ref()), machine, sink);
}

pub(crate) fn check_otlp(otlp: Option<&OtlpSection>, machine: &dyn Machine, sink: &Sink) {
    check_roots(otlp.and_then(|otlp| otlp.ca.as_ref()?.as_ref()), machine, sink);
}

fn check_roots(ca: Option<&Located<PathBuf>>, machine: &dyn Machine, sink: &Sink) {
    if let Some(ca) = ca
        && let Err(message) = machine.client_ca(&ca.value)
    {
        sink.report(&ca.place, message);
    }
}

pub(crate) fn check_images(pools: &[PoolSection], machine: &dyn Machine, sink: &Sink) {
    for image in pools.iter().flat_map(|pool| &pool.image) {
        if let Err(message) = machine.image(&image.value) {
            sink.report(&image.place, message);
        }
    }
}

/// Binds `address` and lets go of it again. A weir that runs with the same configuration is in the way of that.
///
/// # Errors
/// Why it cannot be bound.
pub fn can_bind(address: SocketAddr) -> Result<(), String> {
    TcpListener::bind(address).map(drop).map_err(|error| match error.kind() {
        ErrorKind::AddrInUse => format!("{address} is in use"),
        ErrorKind::AddrNotAvailable => format!("{address} is not an address of this machine"),
        ErrorKind::PermissionDenied => format!("{address} may not be bound by this user"),
        _ => format!("{address} cannot be bound: {error}"),
    })
}

/// Whether there is an image to read: an `embedded` one or a regular file. An embedded name goes before a file of
/// the same name; `./hello` is always a file.
///
/// # Errors
/// Why there is none.
pub fn image_exists(image: &str, embedded: &[&str]) -> Result<(), String> {
    if embedded.contains(&image) {
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
