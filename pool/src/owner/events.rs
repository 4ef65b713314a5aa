//! What the owner is told, and what it makes of it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;
use weir_config::model::Pool;
use weir_vmm::{ExitReason, VmId};

use super::Owner;
use crate::backoff::{Came, LASTING};
use crate::drive::End;
use crate::gate::State;
use crate::health::may_be_killed_by_request;
use crate::launcher::{Prepared, Revision, StartKind};
use crate::rollout::{Draining, RestartError, Restarting};
use crate::roster::Life;
use crate::status::PoolStatus;
use crate::vm::Vm;

/// What the owner is told.
#[derive(Debug)]
pub(crate) enum Event {
    /// A VM takes requests.
    Ready { vm: Vm, kind: StartKind },
    /// A VM's process is gone, or never was.
    Gone { id: VmId, end: End },
    /// A VM is not to be given requests any more; its gate is closed. Of a server outside only if it refused.
    Suspect(VmId, Suspicion),
    /// Nothing of a VM answers: it is to end, whatever requests it has.
    Lost(VmId),
    /// What a VM's guest does without requests: for how long nothing; `None`: its process does not answer.
    Report { id: VmId, quiet: Option<Duration> },
    /// Be another pool, of the same name and isolation.
    Configure { pool: Arc<Pool>, done: oneshot::Sender<()> },
    /// Replace all VMs by new ones.
    Restart { reply: oneshot::Sender<Result<Restarting, RestartError>> },
    /// What VMs are to be replaced by is there, or why it will not be.
    Prepared { revision: Revision, made: Result<Prepared, String> },
    /// Take out all VMs.
    Drain { reply: oneshot::Sender<Draining> },
    /// Somebody wants to know.
    Status { reply: oneshot::Sender<PoolStatus> },
    /// End everything; by force from `until` on.
    Shutdown { until: Instant },
}

/// Why a VM is out of service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Suspicion {
    /// It refused or reset a connection, or broke off an answer.
    Refused,
    /// It left requests in a row without an answer.
    Unanswered,
    /// It failed its health checks.
    Unhealthy,
}

impl Suspicion {
    /// Value of the `reason` label of `weir_vm_ejections_total` and `weir_upstream_ejections_total`.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Unanswered => "unanswered",
            Self::Unhealthy => "unhealthy",
        }
    }

    pub(crate) fn describe(self) -> &'static str {
        match self {
            Self::Refused => "refused a request",
            Self::Unanswered => "left requests unanswered",
            Self::Unhealthy => "failed its health checks",
        }
    }
}

impl Owner {
    /// What has happened by `now`, in its order.
    pub(super) fn apply(&mut self, events: impl Iterator<Item = Event>, now: Instant) {
        // First, so that a failure counts after the success that came before it.
        self.backoff.still_ready(self.roster.ready_vms().map(|vm| vm.ready_at), now);
        events.for_each(|event| self.apply_one(event, now));
    }

    fn apply_one(&mut self, event: Event, now: Instant) {
        match event {
            Event::Ready { vm, kind } => self.ready(vm, kind, now),
            Event::Gone { id, end } => self.gone(id, &end, now),
            Event::Suspect(id, why) => self.suspect(id, why, now),
            Event::Lost(id) => self.lost(id, now),
            Event::Report { id, quiet } => self.reported(id, quiet, now),
            // Whoever asked may have gone away meanwhile.
            Event::Configure { pool, done } => {
                self.configure(pool);
                let _ = done.send(());
            }
            Event::Restart { reply } => drop(reply.send(self.restart())),
            Event::Prepared { revision, made } => self.prepared(revision, made),
            Event::Drain { reply } => drop(reply.send(self.drain())),
            Event::Status { reply } => self.status(now, reply),
            Event::Shutdown { until } => {
                self.forget_outdated();
                self.end_restart(RestartError::ShuttingDown);
                self.shared.close();
                self.shutdown = Some(self.shutdown.map_or(until, |earlier| earlier.min(until)));
            }
        }
    }

    fn ready(&mut self, vm: Vm, kind: StartKind, now: Instant) {
        let (id, address) = (vm.id, vm.address);
        if let Some(started_at) = self.roster.ready(vm) {
            let took = now.duration_since(started_at);
            let (pool, kind_word, start_ms) = (&self.shared.name, kind.label(), took.as_secs_f64() * 1e3);
            tracing::info!(pool, vm = %id, %address, kind = kind_word, start_ms, "vm ready");
            self.shared.metrics.started(kind, took);
            self.backoff.ready();
        }
    }

    fn gone(&mut self, id: VmId, end: &End, now: Instant) {
        self.hold_inquest(id, end, now);
        let Some(entry) = self.roster.gone(id) else { return };
        self.shared.metrics.exited(end.label());
        // Where there is no snapshot to go back to, that is how it is.
        let of_the_host = matches!(end, End::NotStarted(_) | End::Exited(ExitReason::Host(_)));
        let instead_of_reset = matches!(end, End::Exited(ExitReason::Stopped));
        let (pool, end, reason) = (&self.shared.name, end.label(), end.describe());
        match entry.life {
            Life::Ready(vm) if instead_of_reset && vm.gate.state().1 == State::Dirty => {
                tracing::info!(pool, vm = %id, end, reason, "vm ended instead of going back to its snapshot");
            }
            Life::Stopping => tracing::info!(pool, vm = %id, end, reason, "vm stopped"),
            Life::Starting => {
                tracing::warn!(pool, vm = %id, end, reason, "vm start failed");
                let cause = (!of_the_host).then_some(entry.revision);
                let came = if of_the_host { Came::NotIntoBeing } else { Came::Nowhere };
                self.failed(cause, entry.started_at, came, reason, now);
            }
            Life::Ready(vm) | Life::Draining(vm) => {
                tracing::warn!(pool, vm = %id, end, reason, "vm ended unasked");
                self.failed_if_young(entry.revision, entry.started_at, vm.ready_at, reason, now);
            }
        }
    }

    /// Has the requests that are with `id` judged, if its end may be their doing: now if there are none any more, else by
    /// the last to leave, for which they have to learn of the end after this.
    fn hold_inquest(&self, id: VmId, end: &End, now: Instant) {
        let Some(vm) = self.roster.unstopped(id) else { return };
        if matches!(end, End::Exited(reason) if may_be_killed_by_request(reason)) {
            vm.inquest.died(now);
            if vm.gate.close().in_flight == 0 {
                self.shared.quarantine.judge(&vm.inquest.close(), now);
            }
        }
    }

    fn suspect(&mut self, id: VmId, why: Suspicion, now: Instant) {
        let pool = &self.shared.name;
        if let Some((revision, started_at, Life::Draining(vm))) =
            self.roster.drain(id).map(|entry| (entry.revision, entry.started_at, &entry.life))
        {
            let ready_at = vm.ready_at;
            tracing::warn!(pool, vm = %id, why = why.describe(), "vm out of service, draining");
            self.shared.metrics.ejected(why.label());
            self.failed_if_young(revision, started_at, ready_at, why.describe().to_owned(), now);
        }
    }

    fn lost(&mut self, id: VmId, now: Instant) {
        let pool = &self.shared.name;
        if let Some((revision, started_at, vm)) = self.roster.abandon(id) {
            tracing::warn!(pool, vm = %id, in_flight = vm.gate.in_flight(), "vm does not answer, killed");
            self.shared.metrics.ejected("lost");
            self.failed_if_young(revision, started_at, vm.ready_at, "does not answer".to_owned(), now);
        }
    }

    fn failed_if_young(
        &mut self,
        revision: Revision,
        started_at: Instant,
        ready_at: Instant,
        reason: String,
        now: Instant,
    ) {
        if now.duration_since(ready_at) < LASTING {
            self.failed(Some(revision), started_at, Came::ToReady, reason, now);
        }
    }

    /// `cause`: what it was made from, if that may be why.
    fn failed(
        &mut self,
        cause: Option<Revision>,
        started_at: Instant,
        came: Came,
        reason: String,
        now: Instant,
    ) {
        let delay = self.backoff.failed(started_at, came, reason.clone(), now);
        tracing::warn!(pool = self.shared.name, ?delay, "backing off");
        self.doubt(cause, &reason);
    }
}
