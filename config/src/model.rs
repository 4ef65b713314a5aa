//! The validated model. A value of these types has passed every check that needs no other machine state.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnetwork::Ipv4Network;

/// A whole configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Sockets that clients reach, at least one.
    pub listeners: Vec<Listener>,
    /// Administration endpoint, if any.
    pub admin: Option<Admin>,
    /// Limits of this host.
    pub host: Host,
    /// Pools by name.
    pub pools: BTreeMap<String, Arc<Pool>>,
    /// Routes, in the file's order; names are unique and every pool exists.
    pub routes: Vec<Arc<Route>>,
}

/// One `[[listener]]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Listener {
    /// Address to bind in the host's network namespace.
    pub address: SocketAddr,
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
    /// Addresses of TAP links.
    pub network: Ipv4Network,
    /// Directory in which snapshots of templates outlive weir; `None`: they end with it.
    pub snapshots: Option<PathBuf>,
}

/// What a pool's VMs are. More kinds come with the issues that implement them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One image, application and library OS in one.
    Unikernel,
}

/// When a VM goes back to its clean snapshot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Isolation {
    /// Never: it serves whoever comes until it is stopped.
    #[default]
    Vm,
    /// After each connection of a client.
    Connection,
    /// After each request.
    Request,
}

/// `[pool.NAME]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Pool {
    /// The table's name.
    pub name: String,
    /// What its VMs are.
    pub kind: Kind,
    /// A path, or the name of an embedded image.
    pub image: String,
    /// TCP port the application listens on.
    pub port: u16,
    /// Virtual CPUs per VM.
    pub vcpus: u32,
    /// Memory per VM, bytes.
    pub memory: u64,
    /// Environment of the application.
    pub env: BTreeMap<String, String>,
    /// Arguments of the application.
    pub args: Vec<String>,
    /// When its VMs go back to their clean snapshot. Unless that is never, both limits below are 1.
    pub isolation: Isolation,
    /// Requests in flight per VM that scaling aims at.
    pub soft_limit: u32,
    /// Requests in flight per VM that are never exceeded.
    pub hard_limit: u32,
    /// How long a VM may take from start to READY.
    pub start_timeout: Duration,
    /// `[pool.NAME.scale]`.
    pub scale: Scale,
    /// `[pool.NAME.queue]`.
    pub queue: Queue,
    /// `[pool.NAME.health]`.
    pub health: Health,
    /// `[pool.NAME.limits]`.
    pub limits: VmLimits,
}

/// `[pool.NAME.scale]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Scale {
    /// VMs kept even when idle.
    pub min: u32,
    /// VMs never exceeded.
    pub max: u32,
    /// How long a VM above `min` may be without a request.
    pub idle_timeout: Duration,
}

/// `[pool.NAME.queue]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Queue {
    /// Requests that may wait at once.
    pub max_pending: usize,
    /// How long one may wait.
    pub timeout: Duration,
}

/// `[pool.NAME.health]`: how a VM shows that it works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// What a GET asks for: an absolute path, perhaps with a query, as it stands in a request line. `None`: that the
    /// VM is READY and takes a TCP connection is enough.
    pub path: Option<String>,
    /// How long the answer may take.
    pub timeout: Duration,
}

impl Default for Health {
    fn default() -> Self {
        Self { path: None, timeout: Duration::from_secs(1) }
    }
}

/// `[pool.NAME.limits]`: what each VM may take. Where several want the same, it is divided; none of it is promised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VmLimits {
    /// Share of a busy CPU, in proportion to the other VMs' weights: 1 to 10000.
    pub cpu_weight: u32,
    /// CPU time per time, thousandths of one CPU, at least 10. `None`: no limit.
    pub cpu_quota: Option<u32>,
    /// Bytes per second that the guest may send. `None`: no limit, as for the three below.
    pub send_rate: Option<NonZeroU64>,
    /// Bytes per second that the guest may receive.
    pub receive_rate: Option<NonZeroU64>,
    /// Packets per second that the guest may send.
    pub send_packets: Option<NonZeroU64>,
    /// Packets per second that the guest may receive.
    pub receive_packets: Option<NonZeroU64>,
    /// Log lines per second; further ones are counted and dropped.
    pub log_lines: u32,
}

impl Default for VmLimits {
    fn default() -> Self {
        Self {
            cpu_weight: 100,
            cpu_quota: None,
            send_rate: None,
            receive_rate: None,
            send_packets: None,
            receive_packets: None,
            log_lines: 100,
        }
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
    /// Name of an existing pool.
    pub pool: String,
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
