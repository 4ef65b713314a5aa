//! What there is to see of a pool.

use std::net::SocketAddr;
use std::time::Duration;

use weir_vmm::VmId;

use crate::launcher::Revision;
use crate::lease::Start;
use crate::pool::Instances;
use crate::scale::Phase;

/// A pool at one moment.
#[derive(Clone, Debug)]
pub struct PoolStatus {
    /// Its VMs, by where they are in their lives.
    pub instances: Instances,
    /// Requests that wait.
    pub queued: usize,
    /// VMs that scaling wants.
    pub desired: u32,
    /// VMs start as clones.
    pub template: bool,
    /// What VMs are started from.
    pub revision: Revision,
    /// Where its rollout is: `preparing`, `rolling` or `returning`. `None`: there is none.
    pub rollout: Option<&'static str>,
    /// All VMs whose process is not known to be gone, the oldest first.
    pub vms: Vec<VmStatus>,
}

/// A VM at one moment.
#[derive(Clone, Copy, Debug)]
pub struct VmStatus {
    /// Which.
    pub id: VmId,
    /// Where in its life.
    pub state: VmState,
    /// Where its application listens, from READY until it is being stopped.
    pub address: Option<SocketAddr>,
    /// Requests in flight.
    pub in_flight: u32,
    /// Since it was ordered.
    pub age: Duration,
    /// How it came up, once it has.
    pub start: Option<Start>,
    /// What it is made from.
    pub revision: Revision,
}

/// Where a VM is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VmState {
    /// Not READY yet.
    Starting,
    /// Takes requests.
    Ready,
    /// Goes back to its snapshot, to take requests again.
    Resetting,
    /// Takes no new requests, still has some.
    Draining,
    /// Its process is being ended.
    Stopping,
    /// A server outside that gets no requests until it passes a check.
    Out,
}

impl VmState {
    /// One word for it.
    pub fn label(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Resetting => "resetting",
            Self::Draining => "draining",
            Self::Stopping => "stopping",
            Self::Out => "out",
        }
    }
}

impl From<Phase> for VmState {
    fn from(phase: Phase) -> Self {
        match phase {
            Phase::Starting => Self::Starting,
            Phase::Ready => Self::Ready,
            Phase::Resetting => Self::Resetting,
            Phase::Draining => Self::Draining,
            Phase::Stopping => Self::Stopping,
        }
    }
}
