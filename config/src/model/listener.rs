//! `[[listener]]`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnetwork::IpNetwork;

use super::{AcmeCertificate, ListenAddress};

/// One `[[listener]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// What it is bound to.
    pub address: ListenAddress,
    /// Of a Unix socket: who may connect, as permission bits of its file.
    pub mode: u32,
    /// `None`: plain text.
    pub tls: Option<Tls>,
    /// HTTP/2 beside HTTP/1: agreed upon with TLS, in plain text with clients that begin with it.
    pub http2: bool,
    /// How long a client may take for one whole request header, and for TLS's handshake.
    pub header_timeout: Duration,
    /// How long a connection may be without a request.
    pub idle_timeout: Duration,
    /// Connections at once; more are closed as they come.
    pub max_connections: u32,
    /// The same of one client, an IPv4 address or an IPv6 /64, from 1. `None`: no limit.
    pub max_connections_per_client: Option<u32>,
    /// Every request is sent to the same host and path with TLS.
    pub redirect_https: bool,
    /// Whose connections begin with a PROXY protocol header, which says whose they are.
    pub proxy_protocol: ProxyProtocol,
}

impl Listener {
    /// Plain text at `address`, everything else as it is when left out.
    pub fn at(address: SocketAddr) -> Self {
        Self::on(address.into())
    }

    /// As [`Listener::at`], on a Unix socket.
    pub fn at_path(path: &Path) -> Self {
        Self::on(ListenAddress::Unix(path.to_owned()))
    }

    pub(crate) fn on(address: ListenAddress) -> Self {
        Self {
            address,
            mode: 0o660,
            tls: None,
            http2: false,
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(60),
            max_connections: 65_536,
            max_connections_per_client: None,
            redirect_https: false,
            proxy_protocol: ProxyProtocol::Nobody,
        }
    }
}

/// Whose connections begin with a PROXY protocol header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProxyProtocol {
    /// Everybody's are their own.
    Nobody,
    /// Those of hosts in these networks, at least one.
    From(Vec<IpNetwork>),
    /// All: whoever may open the Unix socket is trusted.
    Everybody,
}

/// `listener.tls` and what belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// A client gets the first that has the name it asks for, or the first of all.
    pub certificates: Vec<Certificate>,
    /// Certificates that are obtained, of which any may not be there yet; they come after those from files. At least
    /// one of both.
    pub acme: Vec<AcmeCertificate>,
    /// Clients that speak nothing newer are refused.
    pub min_version: TlsVersion,
    /// `None`: clients are not asked who they are.
    pub client_auth: Option<ClientAuth>,
    /// `None`: nothing is said of it.
    pub hsts: Option<Hsts>,
}

/// `listener.hsts` (RFC 6797 §6.1): browsers come back with TLS only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hsts {
    /// For so long; zero: not any more.
    pub max_age: Duration,
    /// To all names below, too.
    pub include_subdomains: bool,
    /// Browsers may be shipped with it; then the two above are what that takes.
    pub preload: bool,
}

/// Which clients are let in by their certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientAuth {
    /// PEM file: the certificates that clients' certificates lead to.
    pub ca: PathBuf,
    /// Clients without a certificate are refused.
    pub required: bool,
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
