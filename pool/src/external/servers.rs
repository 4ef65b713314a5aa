//! The task that owns one pool of servers: it alone opens and closes their gates.
//!
//! As [`crate::owner`] it looks at everything anew whenever something happened or a time has come, so that events may
//! coalesce. Checks and lookups run beside it; there is at most one of each server and of each name.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt, OptionFuture};
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use weir_config::model::External;
use weir_vmm::VmId;

use super::metrics::{UpstreamMetrics, UpstreamSeries};
use super::names::{Names, Question};
use super::reach::Reach;
use super::standing::{Found, Standing, Verdict};
use crate::health::{Finding, Unhealthy, check};
use crate::lease::LeaseError;
use crate::network::Network;
use crate::owner::{Event, Suspicion};
use crate::shared::Shared;
use crate::vm::Vm;

/// How long a lookup may take.
const LOOKUP: Duration = Duration::from_secs(10);
/// As many events are taken in before a pass, if there are so many.
const EVENTS: usize = 1024;

/// See the module's documentation.
pub(crate) struct Servers {
    pub(super) shared: Arc<Shared>,
    reach: Arc<Reach>,
    ids: Arc<AtomicU64>,
    inbox: mpsc::UnboundedReceiver<Event>,
    names: Names,
    pub(super) members: BTreeMap<SocketAddr, Server>,
    checks: FuturesUnordered<BoxFuture<'static, Checked>>,
    lookups: FuturesUnordered<BoxFuture<'static, LookedUp>>,
    pub(super) series: UpstreamSeries,
    /// Who is in service is not what the pool shows.
    pub(super) changed: bool,
    shutdown: Option<Instant>,
}

pub(super) struct Server {
    pub(super) vm: Arc<Vm>,
    pub(super) standing: Standing,
    /// No name has it any more.
    pub(super) leaving: bool,
}

/// Of which server it is, and what the check has found. The address may be another server's by then.
type Checked = (SocketAddr, VmId, Result<(), Unhealthy>);
type LookedUp = (Question, io::Result<Vec<SocketAddr>>);

impl Drop for Servers {
    fn drop(&mut self) {
        // It and its servers know each other.
        self.shared.set_ready(Vec::new());
        // Nobody would ever be served. Nothing of this if it has been shut down.
        self.shared.close();
        self.shared.fail_waiting(&LeaseError::ShuttingDown);
        self.members.values().for_each(|server| server.vm.set_gone());
    }
}

impl Servers {
    pub(crate) fn new(
        shared: Arc<Shared>,
        external: &External,
        reach: Arc<Reach>,
        ids: Arc<AtomicU64>,
        inbox: mpsc::UnboundedReceiver<Event>,
        metrics: &UpstreamMetrics,
    ) -> Self {
        // Demand brings no further server.
        shared.set_may_grow(false);
        Self {
            series: metrics.series(&shared.name),
            names: Names::new(external, Instant::now()),
            shared,
            reach,
            ids,
            inbox,
            members: BTreeMap::new(),
            checks: FuturesUnordered::new(),
            lookups: FuturesUnordered::new(),
            changed: true,
            shutdown: None,
        }
    }

    /// Until shut down and no request is left.
    pub(crate) async fn run(mut self) {
        let mut events = Vec::new();
        self.join_and_leave(Instant::now());
        loop {
            let look_again = self.pass(Instant::now());
            if self.shutdown.is_some() && self.members.is_empty() && self.shared.waiting() == 0 {
                return;
            }
            tokio::select! {
                _ = self.inbox.recv_many(&mut events, EVENTS) => {}
                () = self.shared.wake.notified() => {}
                Some((address, id, found)) = self.checks.next() => self.checked(address, id, found, Instant::now()),
                Some((question, found)) = self.lookups.next() => self.looked_up(&question, found, Instant::now()),
                Some(()) = OptionFuture::from(look_again.map(sleep_until)) => {}
            }
            events.drain(..).for_each(|event| self.apply(event, Instant::now()));
        }
    }

    /// Looks at everything and does what is due; when to look again.
    fn pass(&mut self, now: Instant) -> Option<Instant> {
        let mut look_again = None;
        match self.shutdown {
            Some(until) => look_again = self.shut_down(until, now),
            None => self.ask(now),
        }
        self.part();
        self.publish();
        self.shared.dispatch(now);
        if self.shutdown.is_none() {
            let checks = self.members.values().filter_map(|server| server.standing.next());
            look_again = checks.chain(self.names.next()).min();
        }
        look_again
    }

    /// Begins the checks and lookups that are due.
    fn ask(&mut self, now: Instant) {
        for question in self.names.due(now) {
            let found = self.reach.resolve(&question.name, question.port);
            let lookup = async move {
                let found =
                    timeout(LOOKUP, found).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
                (question, found)
            };
            self.lookups.push(lookup.boxed());
        }
        for (address, server) in self.members.iter_mut().filter(|(_, server)| !server.leaving) {
            if server.standing.look(now) {
                let (reach, shared, address, id) =
                    (self.reach.clone(), self.shared.clone(), *address, server.vm.id);
                let check =
                    async move { (address, id, check(&*reach, address, &shared.config().health).await) };
                self.checks.push(check.boxed());
            }
        }
    }

    fn looked_up(&mut self, question: &Question, found: io::Result<Vec<SocketAddr>>, now: Instant) {
        let Question { index, name, .. } = question;
        let found = found.inspect_err(|error| {
            tracing::warn!(pool = self.shared.name, name, %error, "server name not found, keeping what it had");
        });
        self.series.looked_up(found.is_ok());
        self.names.answered(*index, found.ok(), now);
        self.join_and_leave(now);
    }

    /// Makes the members those that there should be.
    fn join_and_leave(&mut self, now: Instant) {
        let (pool, health) = (&self.shared.name, &self.shared.config().health);
        let wanted = self.names.servers();
        for (address, server) in &mut self.members {
            let leaving = !wanted.contains(address);
            if leaving && !server.leaving {
                tracing::info!(pool, %address, "server leaves the pool");
                server.vm.gate.close();
                server.standing.eject(health, now);
                self.changed = true;
            } else if server.leaving && !leaving {
                tracing::info!(pool, %address, "server is back in the pool");
                server.standing.hurry(now);
            }
            server.leaving = leaving;
        }
        for address in &wanted {
            self.members.entry(*address).or_insert_with(|| {
                tracing::info!(pool, %address, "server joins the pool");
                let id = VmId(self.ids.fetch_add(1, Relaxed));
                let vm = Arc::new(Vm::server(id, *address, now, self.shared.clone()));
                Server { vm, standing: Standing::new(health, now), leaving: false }
            });
        }
        self.reach.permit(self.members.keys().copied().collect());
    }

    fn checked(&mut self, address: SocketAddr, id: VmId, found: Result<(), Unhealthy>, now: Instant) {
        let finding = found.as_ref().map_or_else(Unhealthy::finding, |()| Finding::Well);
        self.shared.metrics.health_checked(finding.label());
        let others = self.others(address);
        let (pool, health) = (&self.shared.name, &self.shared.config().health);
        let Some(server) = self.members.get_mut(&address).filter(|server| server.vm.id == id) else { return };
        if let Err(error) = &found {
            tracing::debug!(pool, %address, %error, "health check failed");
        }
        let next = now + health.interval.mul_f64(rand::random_range(0.9..1.1));
        match server.standing.found(found_of(&found, finding), others, health, next, now) {
            Verdict::Keep => {}
            // It has left since the check began, and is to be out when it comes back.
            Verdict::Admit if server.leaving => server.standing.eject(health, now),
            Verdict::Admit => {
                tracing::info!(pool, %address, "server in service");
                server.vm.signs.forgive();
                server.vm.gate.reopen();
                self.changed = true;
            }
            Verdict::Eject => {
                server.vm.gate.close();
                self.ejected(address, Suspicion::Unhealthy);
            }
        }
    }

    fn apply(&mut self, event: Event, now: Instant) {
        match event {
            Event::Suspect(id, why) => self.suspect(id, why, now),
            Event::Status { reply } => drop(reply.send(self.status(now))),
            Event::Shutdown { until } => {
                self.shared.close();
                self.shutdown = Some(self.shutdown.map_or(until, |earlier| earlier.min(until)));
            }
            // No change of servers is applied while they are in use: it is told as one that needs a restart.
            Event::Configure { .. }
            // Of VMs only. Who asks for a restart or a drain of servers is told no by the answer that never comes.
            | Event::Ready { .. }
            | Event::Gone { .. }
            | Event::Lost(_)
            | Event::Report { .. }
            | Event::Restart { .. }
            | Event::Prepared { .. }
            | Event::Drain { .. } => {}
        }
    }

    /// What requests have met. Whose connection was refused has a closed gate already.
    fn suspect(&mut self, id: VmId, why: Suspicion, now: Instant) {
        let Some(address) = self.members.iter().find(|(_, server)| server.vm.id == id).map(|(at, _)| *at)
        else {
            return;
        };
        let (others, health) = (self.others(address), &self.shared.config().health);
        let Some(server) = self.members.get_mut(&address) else { return };
        let may_go = why == Suspicion::Refused || others;
        if may_go && server.standing.is_in_service() {
            server.vm.gate.close();
            server.standing.eject(health, now);
            self.ejected(address, why);
        }
    }

    fn ejected(&mut self, address: SocketAddr, why: Suspicion) {
        tracing::warn!(pool = self.shared.name, %address, why = why.describe(), "server out of service");
        self.series.ejected(why);
        self.changed = true;
    }

    /// Whether others than this one are in service.
    fn others(&self, address: SocketAddr) -> bool {
        self.members.iter().any(|(other, server)| *other != address && server.standing.is_in_service())
    }

    /// Forgets those that leave and have no request any more.
    fn part(&mut self) {
        let before = self.members.len();
        self.members.retain(|address, server| {
            let stays = !server.leaving || server.vm.gate.in_flight() > 0;
            if !stays {
                tracing::info!(pool = self.shared.name, %address, "server has left the pool");
                server.vm.set_gone();
            }
            stays
        });
        if self.members.len() < before {
            self.reach.permit(self.members.keys().copied().collect());
            self.changed = true;
        }
    }

    /// One step towards the end: those that wait, then the leases, then, at `until`, whatever there is.
    fn shut_down(&mut self, until: Instant, now: Instant) -> Option<Instant> {
        if now >= until {
            self.shared.fail_waiting(&LeaseError::ShuttingDown);
            self.members.values().for_each(|server| server.vm.set_gone());
            self.members.clear();
            self.changed = true;
            return None;
        }
        if self.shared.waiting() == 0 {
            for server in self.members.values_mut() {
                server.vm.gate.close();
                self.changed |= !std::mem::replace(&mut server.leaving, true);
            }
        }
        Some(until)
    }
}

fn found_of(found: &Result<(), Unhealthy>, finding: Finding) -> Found {
    match (found, finding) {
        (_, Finding::Well) => Found::Well,
        (_, Finding::Unknown) => Found::Nothing,
        (Err(Unhealthy::Connect { .. } | Unhealthy::Silent(_)), _) => Found::Unreachable,
        _ => Found::Ill,
    }
}
