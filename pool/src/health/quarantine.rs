//! A pool's quarantine as requests meet it.
//!
//! It costs a request that meets no suspicion one atomic read: only while somebody is suspected are requests told apart
//! by their fingerprints.
//!
//! A death is judged when the last request that was with the VM has said so and left, see [`Inquest`].

use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::time::Duration;

use parking_lot::Mutex;
use prometheus::IntGauge;
use tokio::sync::Notify;
use tokio::time::Instant;
use weir_config::model;
use weir_vmm::ExitReason;

use super::blame::{Fingerprint, Suspect, Table};

/// Connections that broke so long before a VM's end was known have to do with it.
const BEFORE: Duration = Duration::from_secs(1);
/// Broken connections that are remembered until their VM's end is known.
const BROKEN: usize = 64;

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Quarantine {
    table: Mutex<Table>,
    /// The table's length and judgements, for those who do not lock it.
    entries: AtomicUsize,
    judged: AtomicU64,
    gauge: IntGauge,
    changed: Notify,
}

/// A request's leave to be sent to a VM.
#[derive(Clone, Copy, Debug)]
pub struct Pass {
    /// Known if requests were told apart when it was given.
    fingerprint: Option<Fingerprint>,
    judged: u64,
}

/// What is known of the requests that were with one VM at its end.
#[derive(Debug, Default)]
pub(crate) struct Inquest(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    suspects: Vec<(Suspect, Instant)>,
    /// The VM ended, and it was not weir's doing.
    died: bool,
}

impl Quarantine {
    pub(crate) fn new(config: &model::Quarantine, gauge: IntGauge) -> Self {
        Self {
            table: Mutex::new(Table::new(config.clone())),
            entries: AtomicUsize::new(0),
            judged: AtomicU64::new(0),
            gauge,
            changed: Notify::new(),
        }
    }

    /// From now on it works by these rules, also on whom it suspects already.
    pub(crate) fn configure(&self, config: &model::Quarantine) {
        self.change(|table| table.configure(config));
    }

    /// Leave for the request with this fingerprint, or for how long it is refused.
    pub(crate) fn admit(
        &self,
        fingerprint: impl FnOnce() -> Fingerprint,
        now: Instant,
    ) -> Result<Pass, Duration> {
        let judged = self.judged.load(Relaxed);
        if self.is_empty() {
            return Ok(Pass { fingerprint: None, judged });
        }
        let fingerprint = fingerprint();
        let table = self.table.lock();
        match table.refused_until(fingerprint, now) {
            Some(until) => Err(until - now),
            None => Ok(Pass { fingerprint: Some(fingerprint), judged: table.judged() }),
        }
    }

    /// The request that had this leave was answered.
    pub(crate) fn acquit(&self, pass: &Pass) {
        if let Some(fingerprint) = pass.fingerprint.filter(|_| !self.is_empty()) {
            self.change(|table| table.acquit(fingerprint));
        }
    }

    /// Judges a death.
    pub(crate) fn judge(&self, suspects: &[Suspect], now: Instant) {
        if !suspects.is_empty() {
            self.change(|table| table.judge(suspects, now));
            self.changed.notify_one();
        }
    }

    /// Forgets what is long past.
    pub(crate) fn expire(&self, now: Instant) {
        if !self.is_empty() {
            self.change(|table| table.expire(now));
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.load(Relaxed) == 0
    }

    /// Resolves when a death has been judged since this last resolved.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    fn change(&self, change: impl FnOnce(&mut Table)) {
        let mut table = self.table.lock();
        change(&mut table);
        self.entries.store(table.len(), Relaxed);
        self.judged.store(table.judged(), Relaxed);
        self.gauge.set(i64::try_from(table.len()).unwrap_or(i64::MAX));
    }
}

impl Inquest {
    /// The connection of a request to the VM broke while it was there; or the VM's end was what broke it.
    pub(crate) fn lost(&self, fingerprint: Fingerprint, pass: &Pass, now: Instant) {
        let mut state = self.0.lock();
        if !state.died {
            state.suspects.retain(|(_, at)| now < *at + BEFORE);
            if state.suspects.len() >= BROKEN {
                return;
            }
        }
        state.suspects.push((Suspect { fingerprint, sent_after: pass.judged }, now));
    }

    /// The VM has ended, and it was not weir's doing. Before its requests learn of it.
    pub(crate) fn died(&self, now: Instant) {
        let mut state = self.0.lock();
        state.died = true;
        state.suspects.retain(|(_, at)| now < *at + BEFORE);
    }

    /// No request is with the VM any more: who is to be judged for its death. Nobody the second time.
    pub(crate) fn close(&self) -> Vec<Suspect> {
        let mut state = self.0.lock();
        if !state.died {
            return Vec::new();
        }
        std::mem::take(&mut state.suspects).into_iter().map(|(suspect, _)| suspect).collect()
    }
}

/// Whether a VM that ended so may have been killed by a request. SIGKILL comes from outside: no guest can have its process
/// end like that. Nor is a launcher's end, which takes its VMs along, any request's doing.
pub(crate) fn may_be_killed_by_request(end: &ExitReason) -> bool {
    match end {
        ExitReason::Exited(_) | ExitReason::Panicked(_) | ExitReason::Faulted(_) | ExitReason::Crashed(_) => {
            true
        }
        ExitReason::Died(status) => status.starts_with("signal ") && !status.starts_with("signal 9 "),
        ExitReason::Stopped | ExitReason::Refused(_) | ExitReason::Host(_) => false,
    }
}
