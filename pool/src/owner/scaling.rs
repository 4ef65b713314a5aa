//! From what scaling decides to what the owner does.

use std::sync::atomic::Ordering::Relaxed;
use std::time::SystemTime;

use tokio::sync::oneshot;
use tokio::time::Instant;
use weir_vmm::VmId;

use super::Owner;
use crate::drive::drive;
use crate::launcher::StartOrder;
use crate::scale::{Decision, Limits, View, WeekTime, busy_again, decide, demand, live, revocations};

impl Owner {
    /// With these limits, decides and does.
    pub(super) fn scale(&mut self, limits: &Limits, now: Instant) -> Option<Instant> {
        // Before looking, so that what comes too late to be seen wakes; `publish` takes it back.
        self.shared.set_may_grow(true);
        let vms = self.roster.views();
        let queued = self.shared.waiting();
        let averages = self.windows.observe(demand(limits, queued, &vms, now), live(&vms), now);
        let view = View {
            retry: self.backoff.retry(now),
            averages,
            panic: self.panic,
            week_time: WeekTime::of(SystemTime::now()),
            ..View::new(limits, queued, &vms)
        };
        let decision = decide(&view, now);
        self.panic = decision.panic;
        self.shared.metrics.desired.set(decision.desired.into());
        self.shared.metrics.panic.set(decision.panic.is_some().into());
        let missed = self.retire(&decision);
        let started = self.start(decision.start, now);
        self.revoke(&revocations(&view, &decision.retire, started, now));
        let retry = missed.then(|| now + busy_again(limits.idle_timeout));
        decision.look_again.into_iter().chain(retry).min()
    }

    /// Whether one of them is not idle any more.
    fn retire(&mut self, decision: &Decision) -> bool {
        let mut missed = false;
        for id in &decision.retire {
            if self.roster.retire(*id) {
                tracing::info!(pool = self.shared.config.name, vm = %id, "vm idle");
            } else {
                missed = true;
            }
        }
        for id in &decision.drain {
            if self.roster.drain(*id).is_some() {
                tracing::info!(pool = self.shared.config.name, vm = %id, "vm not needed any more, draining");
            }
        }
        missed
    }

    fn revoke(&mut self, ids: &[VmId]) {
        for id in ids {
            // One that has a request again keeps its VM; who waits will look again when that has ended.
            if let Some(vm) = self.roster.revoke(*id) {
                tracing::debug!(pool = self.shared.config.name, vm = %id, "vm taken from an idle connection");
                self.shared.reset(vm);
            }
        }
    }

    /// How many there was room for.
    fn start(&mut self, count: u32, now: Instant) -> u32 {
        let was_starved = std::mem::take(&mut self.starved);
        for started in 0..count {
            let Some(room) = self.share.reserve() else {
                self.starved = true;
                if !was_starved {
                    tracing::warn!(pool = self.shared.config.name, "host budget exhausted, vm start waits");
                }
                return started;
            };
            let id = VmId(self.ids.fetch_add(1, Relaxed));
            tracing::info!(pool = self.shared.config.name, vm = %id, "vm starting");
            let order = StartOrder { id, pool: self.shared.config.clone() };
            let (stop, stopped) = oneshot::channel();
            self.roster.starting(id, stop, room, now);
            tokio::spawn(drive(self.launcher.clone(), order, stopped, self.shared.clone()));
        }
        count
    }
}
