//! Servers that weir does not start.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

/// What is special to a pool with `kind = "external"`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct External {
    /// Where its servers are: at least one, all different.
    pub addresses: Vec<ServerAddress>,
    /// Time from one look-up of the names among them to the next.
    pub resolve: Duration,
}

/// Where a server is, or several.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ServerAddress {
    /// One server. The port is not 0.
    Ip(SocketAddr),
    /// A server at each address that the name has.
    Name {
        /// A host name, lower case.
        name: String,
        /// TCP port of all of them, not 0.
        port: u16,
    },
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Name { name, port } => write!(f, "{name}:{port}"),
        }
    }
}
