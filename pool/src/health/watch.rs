//! The task that looks after a pool's VMs.
//!
//! It looks at all of them once in a tick, and no more often however many checks end meanwhile: with thousands of VMs
//! there are thousands of checks in a second, and each look costs as much as there are VMs. Those that are due wait in
//! the order in which they were found so: checks that take long, as those of VMs that do not answer, delay the others'
//! but take nobody's turn.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt};
use tokio::time::error::Elapsed;
use tokio::time::{Instant, sleep_until, timeout};
use weir_config::model::{Health, Isolation};
use weir_vmm::VmId;

use super::Finding;
use super::record::{Record, Verdict, tick};
use crate::launcher::Launcher;
use crate::owner::{Event, Suspicion};
use crate::shared::Shared;
use crate::vm::Vm;

/// A process has so long at least to answer, whatever its application is expected to do: on a busy host it may have to wait
/// for a CPU.
const PATIENCE: Duration = Duration::from_secs(1);
/// Checks under way at once; others wait.
const AT_ONCE: usize = 16;

/// See the module's documentation.
struct Watch {
    shared: Arc<Shared>,
    launcher: Arc<dyn Launcher>,
    /// Those in service, and those that were and are not gone.
    watched: BTreeMap<VmId, Watched>,
    /// Those of which a record waits for a check, the one that has waited longest first.
    due: VecDeque<Arc<Vm>>,
    ejected_at: Option<Instant>,
}

struct Watched {
    vm: Arc<Vm>,
    record: Record,
    in_service: bool,
}

impl Watched {
    /// The VM, if it is to be checked, now or as soon as it can be.
    fn due(&mut self, health: &Health, now: Instant) -> Option<Arc<Vm>> {
        let seen = self.vm.signs.see(self.vm.gate.in_flight() > 0);
        self.record.look(seen, health, now).then(|| self.vm.clone())
    }
}

/// Looks after the pool of `shared` until that has ended.
pub(crate) async fn watch(shared: Arc<Shared>, launcher: Arc<dyn Launcher>) {
    let mut instances = shared.instances.subscribe();
    let mut configured = shared.configured.subscribe();
    let mut checks = FuturesUnordered::new();
    let (watched, due) = (BTreeMap::new(), VecDeque::new());
    let mut watch = Watch { shared: shared.clone(), launcher, watched, due, ejected_at: None };
    let mut look_at = Instant::now();
    loop {
        let now = Instant::now();
        if look_at <= now {
            // Before the list is read, so that what comes too late to be read wakes.
            instances.mark_unchanged();
            watch.look(now);
            shared.quarantine.expire(now);
            look_at = now + tick(&shared.config().health);
        }
        while checks.len() < AT_ONCE
            && let Some(vm) = watch.next()
        {
            checks.push(watch.check(vm));
        }
        let idle = watch.watched.is_empty() && shared.quarantine.is_empty();
        tokio::select! {
            () = shared.events.closed() => return,
            Some((id, finding)) = checks.next() => watch.found(id, finding, Instant::now()),
            () = sleep_until(look_at), if !idle => {}
            // An error would mean that its sender is gone, which `shared` has.
            _ = instances.changed(), if idle => look_at = Instant::now(),
            _ = configured.changed() => {
                look_at = Instant::now();
                watch.check_again(look_at);
            }
            () = shared.quarantine.changed(), if idle => look_at = Instant::now(),
        }
    }
}

impl Watch {
    /// Finds out who is due at `now`.
    fn look(&mut self, now: Instant) {
        let config = self.shared.config();
        let health = &config.health;
        self.watched.retain(|_, watched| !watched.vm.is_gone());
        self.watched.values_mut().for_each(|watched| watched.in_service = false);
        for vm in self.shared.ready_vms().iter().filter(|vm| !vm.is_gone()) {
            let first = || {
                // Anywhere in the interval, so that VMs that were started together are not checked together.
                let due = now + health.interval.mul_f64(rand::random_range(0.1..1.0));
                Watched { vm: vm.clone(), record: Record::new(due), in_service: true }
            };
            self.watched.entry(vm.id).or_insert_with(first).in_service = true;
        }
        let due = self.watched.values_mut().filter_map(|watched| watched.due(health, now));
        self.due.extend(due);
    }

    /// The pool's settings are others: whatever the interval was, it is this one now.
    fn check_again(&mut self, now: Instant) {
        let interval = self.shared.config().health.interval;
        for watched in self.watched.values_mut() {
            watched.record.due_by(now + interval.mul_f64(rand::random_range(0.1..1.0)));
        }
    }

    /// Who is to be checked next. Not one that has gone meanwhile: its address may be another VM's by now.
    fn next(&mut self) -> Option<Arc<Vm>> {
        std::iter::from_fn(|| self.due.pop_front()).find(|vm| !vm.is_gone())
    }

    fn check(&self, vm: Arc<Vm>) -> impl Future<Output = (VmId, Finding)> + Send + use<> {
        let (launcher, config) = (self.launcher.clone(), self.shared.config());
        async move {
            let process = timeout(config.health.timeout.max(PATIENCE), vm.ask());
            if config.isolation != Isolation::Vm {
                let finding = match process.await {
                    Ok(Some(_)) => Finding::Well,
                    silent => put_together(Finding::Silent, silent),
                };
                return (vm.id, finding);
            }
            let finding = match launcher.check(vm.id, vm.address, config.clone()).await {
                Ok(()) => Finding::Well,
                Err(error) => {
                    tracing::debug!(pool = config.name, vm = %vm.id, %error, "health check failed");
                    put_together(error.finding(), process.await)
                }
            };
            (vm.id, finding)
        }
    }

    fn found(&mut self, id: VmId, finding: Finding, now: Instant) {
        self.shared.metrics.health_checked(finding.label());
        let Some(Watched { vm, record, in_service }) = self.watched.get_mut(&id) else { return };
        let config = self.shared.config();
        let health = &config.health;
        let next = now + health.interval.mul_f64(rand::random_range(0.9..1.1));
        match record.found(finding, *in_service, health, next, now) {
            Verdict::Keep => {}
            Verdict::Eject => {
                let vm = vm.clone();
                if self.may_eject(id, now) {
                    self.ejected_at = Some(now);
                    self.shared.suspect(&vm, Suspicion::Unhealthy);
                }
            }
            // Fails only when the owner is gone, and then so are its VMs.
            Verdict::Kill => drop(self.shared.events.send(Event::Lost(id))),
        }
    }

    /// If no VM is well the cause may be none of theirs, and an application that fails some requests is better than none.
    /// Then they go one by one: each is ejected when the one before has had an interval's time to be replaced.
    fn may_eject(&self, id: VmId, now: Instant) -> bool {
        let mut others = self.watched.iter().filter(|(other, watched)| **other != id && watched.in_service);
        let interval = self.shared.config().health.interval;
        others.any(|(_, watched)| watched.record.is_well())
            || self.ejected_at.is_none_or(|at| now >= at + interval)
    }
}

/// What the application's check and the process's answer (or its end) say together.
fn put_together(application: Finding, process: Result<Option<Duration>, Elapsed>) -> Finding {
    match (application, process) {
        // It has ended, which others see to.
        (_, Ok(None)) => Finding::Unknown,
        (Finding::Silent, Err(_)) => Finding::Lost,
        (application, _) => application,
    }
}
