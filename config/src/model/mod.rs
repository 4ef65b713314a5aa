//! The validated model. A value of these types has passed every check that needs no other machine state.

mod access_log;
mod acme;
mod action;
mod address;
mod affinity;
mod auth;
mod block_list;
mod breaker;
mod compress;
mod external;
mod failure;
mod field_match;
mod file;
mod filter;
mod headers;
mod jwt;
mod keys;
mod listener;
mod mirror;
mod otlp;
mod pages;
mod passwords;
mod patience;
mod pool;
mod rule;
mod scale;
mod split;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use ipnetwork::{IpNetwork, Ipv4Network};

pub use crate::decimal::Thousandths;
pub use access_log::{AccessLog, LogFormat};
pub(crate) use acme::file_name;
pub use acme::{Acme, AcmeCertificate, AcmeChallenge, ExternalAccount};
pub use action::{Destination, Pattern, Piece, Redirect, Respond, Rewrite};
pub use address::ListenAddress;
pub use affinity::{Affinity, AffinityKey, SessionCookie};
pub use auth::{Auth, BasicAuth};
pub use block_list::BlockList;
pub use breaker::Breaker;
pub use compress::{Coding, Compress};
pub use external::{External, ServerAddress};
pub use failure::{Health, Quarantine, Retry};
pub use field_match::{FieldMatch, FieldValue};
pub use file::{Content, FileError, FileOf, Stamp};
pub use filter::Filter;
pub use headers::{Cors, Edits, Origins};
pub use jwt::{Algorithm, JwtAuth, TokenSource};
pub use keys::{KeyMaterial, KeySet, TokenKey};
pub use listener::{Certificate, ClientAuth, Hsts, Listener, ProxyProtocol, Tls, TlsVersion};
pub use mirror::Mirror;
pub use otlp::Otlp;
pub use pages::{ErrorPages, Instead, Maintenance, Page};
pub use passwords::{PasswordHash, Passwords};
pub use patience::Patience;
pub use pool::{Isolation, Kind, Overflow, Pool, Protocol, Queue, VmLimits};
pub use rule::{Condition, Fact, Rule, Then, Variable};
pub use scale::{Idle, MetricSelector, Scale, Schedule, Signal};
pub use split::Share;

/// A whole configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Sockets that clients reach, at least one.
    pub listeners: Vec<Listener>,
    /// Administration endpoint, if any.
    pub admin: Option<Admin>,
    /// Who issues certificates; there when a listener has some to be obtained.
    pub acme: Option<Acme>,
    /// Limits of this host.
    pub host: Host,
    /// Where requests are written down.
    pub access_log: AccessLog,
    /// Where spans of requests go, if anywhere.
    pub otlp: Option<Otlp>,
    /// Classes of requests by name, 1 to 64; [`Class::DEFAULT`] is among them.
    pub classes: BTreeMap<String, Arc<Class>>,
    /// Pools by name.
    pub pools: BTreeMap<String, Arc<Pool>>,
    /// Pages of errors for all requests.
    pub error_pages: ErrorPages,
    /// Routes, in the file's order; names are unique and every pool and class exists.
    pub routes: Vec<Arc<Route>>,
}

/// `[admin]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Admin {
    /// Address to bind in the host's network namespace.
    pub address: SocketAddr,
}

/// `[host]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Host {
    /// Memory for all VMs together, bytes.
    pub memory: u64,
    /// VMs alive at once, all pools together.
    pub max_vms: u32,
    /// VMs that may be starting at once, all pools together: 1 to 4096.
    pub max_starts: u32,
    /// Addresses of TAP links.
    pub network: Ipv4Network,
    /// Directory in which snapshots of templates outlive weir; `None`: they end with it.
    pub snapshots: Option<PathBuf>,
    /// Proxies in front of weir whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNetwork>,
    /// For a new binary to be ready to take over.
    pub upgrade_timeout: Duration,
}

impl Default for Host {
    fn default() -> Self {
        let network =
            Ipv4Network::new(Ipv4Addr::new(10, 88, 0, 0), 16).expect("a prefix of 16 bits is valid");
        Self {
            memory: 8 << 30,
            max_vms: 512,
            max_starts: 16,
            network,
            snapshots: None,
            trusted_proxies: Vec::new(),
            upgrade_timeout: Duration::from_secs(30),
        }
    }
}

/// `[class.NAME]`: requests that have one share of the VMs when they wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Class {
    /// The table's name.
    pub name: String,
    /// Share of the VMs' time, in proportion to the weights of the other classes whose requests wait: 1 to 1000.
    pub weight: u32,
}

impl Class {
    /// Name of the class of routes that name none.
    pub const DEFAULT: &str = "default";
}

impl Default for Class {
    fn default() -> Self {
        Self { name: Self::DEFAULT.to_owned(), weight: 1 }
    }
}

/// One `[[route]]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// Unique name, for logs and metrics.
    pub name: String,
    /// Which hosts it answers for.
    pub host: HostPattern,
    /// Path prefix, starts with `/`; matches whole segments.
    pub path: String,
    /// Conditions on header fields, which hold all together; none: all requests for host and path.
    pub headers: Vec<FieldMatch>,
    /// What becomes of its requests.
    pub to: Destination,
    /// Name of the pool for requests that those of `to` do not take; none of those.
    pub fallback: Option<String>,
    /// Who gets copies of its requests; `None`: nobody.
    pub mirror: Option<Mirror>,
    /// Which of its requests belong together; `None`: none.
    pub affinity: Option<Affinity>,
    /// Whose share its requests have while they wait; one of the configuration's classes.
    pub class: Arc<Class>,
    /// Methods that it takes, each once; `None`: all.
    pub methods: Option<Vec<Method>>,
    /// How the path changes on the way to a pool.
    pub rewrite: Option<Rewrite>,
    /// Which requests it lets through, and how it changes them and their answers.
    pub filter: Filter,
    /// Whom it lets in; `None`: it asks nobody who they are.
    pub auth: Option<Auth>,
    /// What pages of other origins may do; `None`: what a VM says.
    pub cors: Option<Cors>,
    /// Which responses are compressed; `None`: none.
    pub compress: Option<Compress>,
    /// Whether answers say where the time went.
    pub server_timing: bool,
    /// What it answers instead of what it is asked for.
    pub instead: Instead,
}

impl Route {
    /// A route to a pool that has nothing else to it.
    pub fn to_pool(name: &str, host: HostPattern, path: &str, pool: &str) -> Self {
        Self {
            name: name.to_owned(),
            host,
            path: path.to_owned(),
            headers: Vec::new(),
            to: Destination::Pool(pool.to_owned()),
            fallback: None,
            mirror: None,
            affinity: None,
            class: Arc::default(),
            methods: None,
            rewrite: None,
            filter: Filter::default(),
            auth: None,
            cors: None,
            compress: None,
            server_timing: false,
            instead: Instead::default(),
        }
    }

    /// Names of all pools that its requests may go to, the fallback last.
    pub fn pools(&self) -> impl Iterator<Item = &str> {
        let (one, several) = match &self.to {
            Destination::Pool(name) => (Some(name), &[][..]),
            Destination::Split(shares) => (None, &shares[..]),
            Destination::Respond(_) | Destination::Redirect(_) => (None, &[][..]),
        };
        let several = several.iter().map(|share| &share.pool);
        one.into_iter().chain(several).chain(&self.fallback).map(String::as_str)
    }
}

/// `route.host`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HostPattern {
    /// Exactly this host, lower case.
    Exact(String),
    /// `*.example`: any host with at least one label before this suffix (`example`, lower case).
    Suffix(String),
    /// Any host, or none.
    Any,
}
