//! `[pool.NAME]`: what a pool's VMs are, and what each of them may take.

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::time::Duration;

use super::{Breaker, External, Health, Quarantine, Retry, Scale, Signal};

/// What a pool has. More kinds come with the issues that implement them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// VMs of one image, application and library OS in one.
    Unikernel,
    /// Servers that are there without weir.
    External(External),
}

/// What VMs, or servers, are asked in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1.
    #[default]
    H1,
    /// HTTP/2 in plain text, which they have to know (RFC 9113 §3.3).
    H2c,
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

/// `[pool.NAME]`. What says how VMs are made and kept is empty, or the default, where it has none
/// ([`Kind::External`]): limits, `queue`, `health` and `retry` hold for both.
#[derive(Clone, Debug, PartialEq)]
pub struct Pool {
    /// The table's name.
    pub name: String,
    /// What it has.
    pub kind: Kind,
    /// A path, or the name of an embedded image.
    pub image: String,
    /// What it is asked in.
    pub protocol: Protocol,
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
    /// Share of the host, in proportion to the weights of the other pools that want more of it: 1 to 1000.
    pub weight: u32,
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
    /// `[pool.NAME.retry]`.
    pub retry: Retry,
    /// `[pool.NAME.breaker]`; `None`: it gets requests whatever becomes of them.
    pub breaker: Option<Breaker>,
    /// `[pool.NAME.quarantine]`.
    pub quarantine: Quarantine,
    /// `[pool.NAME.signal]`; `None`: its VMs are not asked for any metric.
    pub signal: Option<Signal>,
    /// `[pool.NAME.limits]`.
    pub limits: VmLimits,
}

impl Pool {
    /// Its servers, if it has those instead of VMs.
    pub fn external(&self) -> Option<&External> {
        match &self.kind {
            Kind::External(external) => Some(external),
            Kind::Unikernel => None,
        }
    }
}

/// `[pool.NAME.queue]`: requests that wait for a VM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queue {
    /// Requests that may wait at once.
    pub max_pending: usize,
    /// Heads of requests that may wait at once, bytes: 64 KiB to 4 GiB.
    pub max_memory: u64,
    /// How long one may wait.
    pub timeout: Duration,
    /// What becomes of a request for which no VM has room.
    pub overflow: Overflow,
}

impl Default for Queue {
    fn default() -> Self {
        Self {
            max_pending: 1000,
            max_memory: 16 << 20,
            timeout: Duration::from_secs(10),
            overflow: Overflow::Wait,
        }
    }
}

/// What becomes of a request for which no VM has room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overflow {
    /// It waits in the queue.
    #[default]
    Wait,
    /// It is answered 503 at once; if the pool has no VM, it has woken it.
    Reject,
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
