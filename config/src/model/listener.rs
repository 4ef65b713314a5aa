//! `[[listener]]`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnetwork::IpNetwork;

/// One `[[listener]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Address to bind in the host's network namespace.
    pub address: SocketAddr,
    /// `None`: plain text.
    pub tls: Option<Tls>,
    /// HTTP/2 beside HTTP/1: agreed upon with TLS, in plain text with clients that begin with it.
    pub http2: bool,
    /// How long a client may take for one whole request header, and for TLS's handshake.
    pub header_timeout: Duration,
    /// Connections at once; more are closed as they come.
    pub max_connections: u32,
    /// Hosts whose connections begin with a PROXY protocol header, which says whose they are; none: nobody's do.
    pub trusted_proxies: Vec<IpNetwork>,
}

impl Listener {
    /// Plain text at `address`, everything else as it is when left out.
    pub fn at(address: SocketAddr) -> Self {
        Self {
            address,
            tls: None,
            http2: false,
            header_timeout: Duration::from_secs(10),
            max_connections: 65_536,
            trusted_proxies: Vec::new(),
        }
    }
}

/// `listener.tls` and what belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// At least one. A client gets the first that has the name it asks for, or the first of all.
    pub certificates: Vec<Certificate>,
    /// Clients that speak nothing newer are refused.
    pub min_version: TlsVersion,
}

/// Where a certificate and its key are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// PEM file: the certificate, and after it those that lead to a root.
    pub certificate: PathBuf,
    /// PEM file: the private key.
    pub key: PathBuf,
}

/// `listener.min_version`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// RFC 5246.
    Tls12,
    /// RFC 8446.
    Tls13,
}
