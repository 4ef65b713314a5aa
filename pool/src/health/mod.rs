//! Which VMs work: every VM in service is asked from time to time, and at once when its requests get no answer.
//!
//! ```text
//!               a check fails                        unhealthy_after in a row          last request ends
//!  in service ─────────────────> in service, doubted ─────────────────────────> out ─────────────────────> stopped
//!       ^                           │ a good one                                 │
//!       └───────────────────────────┘                                            │ has not answered TCP for GRACE
//!       │ lost: its process does not answer either, or no packet reaches it      v
//!       └──────────────────────────────────────────────────────────────────────> killed, its requests are set free
//! ```
//!
//! Slow is not dead: a guest that computes answers nobody, neither a request nor a check. So two questions are asked, the
//! application over TCP, and the VM's process over its control socket, which answers whatever its guest is at. Only who
//! answers neither is killed; who is slow is given no more requests, keeps those it has, and they their own timeouts.
//!
//! A check is not a request: it has no lease, so that it neither counts as demand, nor starts a VM, nor keeps one. Where
//! requests or connections are isolated it would be one more tenant, and would find a VM either busy with its tenant or
//! fresh from the snapshot, of which the canary has shown that it works; there only the process is asked.
//!
//! What requests meet counts at once: a VM that refuses or resets a connection, or breaks off an answer, is out
//! ([`crate::Lease::suspect`]), and so is one of which `unhealthy_after` requests in a row had no answer within their
//! time ([`crate::Lease::unanswered`]). A status is an answer, whatever it says.
//!
//! And a VM may be well until a request kills it: such requests are found and refused, see [`blame`] and [`quarantine`].

mod blame;
mod check;
mod quarantine;
mod record;
mod signs;
mod watch;

pub use blame::Fingerprint;
pub use check::Unhealthy;
pub(crate) use check::{check, check_canary};
pub use quarantine::Pass;
pub(crate) use quarantine::{Inquest, Quarantine, may_be_killed_by_request};
pub(crate) use signs::Signs;
pub(crate) use watch::watch;

/// What a check says of a VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Finding {
    /// It works.
    Well,
    /// It answers, but not as it should.
    Unwell,
    /// Its guest answers no connection; its process does.
    Silent,
    /// Nothing of it answers, or nothing reaches it.
    Lost,
    /// Nothing: the check itself could not be made, or the VM has ended.
    Unknown,
}

impl Finding {
    /// Value of the `result` label of `weir_health_checks_total`.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Well => "ok",
            Self::Unwell => "failed",
            Self::Silent => "silent",
            Self::Lost => "lost",
            Self::Unknown => "unknown",
        }
    }
}
