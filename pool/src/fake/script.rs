//! What a VM does, and what may be wrong with it.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use tokio::time::Instant;
use weir_vmm::{ExitReason, VmEvent};

use crate::launcher::StartKind;

/// What a VM does.
#[derive(Clone, Debug)]
pub struct Script {
    /// Where it claims to listen.
    pub address: SocketAddr,
    /// How it comes up.
    pub boot: Boot,
    /// What it claims to be made from.
    pub kind: StartKind,
    /// How it goes back to its snapshot.
    pub reset: Reset,
    /// How often it has gone back; may be shared with what plays its application.
    pub resets: Arc<AtomicU32>,
    /// What it says of its guest.
    pub report: Report,
    /// How long it takes to end when asked to; `None`: it does not listen.
    pub stop: Option<Duration>,
}

/// How a VM comes up.
#[derive(Clone, Debug)]
pub enum Boot {
    /// READY after this time.
    Ready(Duration),
    /// Runs, but is never READY.
    Silent,
    /// Ends after this time.
    Exits(Duration, ExitReason),
    /// There is no process: the launcher refuses.
    Refused(String),
    /// The launcher does not answer.
    Hangs,
    /// The launcher has a bug.
    Panics,
}

/// How a VM goes back to its snapshot.
#[derive(Clone, Debug)]
pub enum Reset {
    /// READY after this time.
    Ready(Duration),
    /// Never.
    Hangs,
    /// Ends instead after this time.
    Exits(Duration, ExitReason),
}

/// What a VM says when it is asked what its guest does without requests.
#[derive(Clone, Debug, Default)]
pub enum Report {
    /// Nothing for longer than anybody remembers.
    #[default]
    Quiet,
    /// Something, until then.
    WorksUntil(Instant),
    /// It does not answer.
    Silent,
}

/// What is wrong with a VM that is READY.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ailment {
    /// Its application answers health checks with this status.
    Status(u16),
    /// Its guest answers nobody.
    Silent,
    /// Its process does nothing at all, as if stopped by a signal; it can be killed.
    Stopped,
}

impl Script {
    /// READY after `boot` at `address`, and ends at once when asked to.
    pub fn ready_after(boot: Duration, address: SocketAddr) -> Self {
        Self { address, ..Self::boot(Boot::Ready(boot)) }
    }

    /// As `boot` says, at an address where nobody listens.
    pub fn boot(boot: Boot) -> Self {
        Self {
            address: (Ipv4Addr::LOCALHOST, 1).into(),
            boot,
            kind: StartKind::Cold,
            reset: Reset::Ready(Duration::ZERO),
            resets: Arc::default(),
            report: Report::default(),
            stop: Some(Duration::ZERO),
        }
    }
}

impl Report {
    pub(super) fn event(&self, now: Instant) -> Option<VmEvent> {
        let quiet = match self {
            Self::Quiet => Duration::MAX,
            Self::WorksUntil(until) => now.saturating_duration_since(*until),
            Self::Silent => return None,
        };
        Some(VmEvent::Report { quiet })
    }
}
