//! From what scaling decides to what the owner does.

use std::sync::atomic::Ordering::Relaxed;

use tokio::sync::oneshot;
use tokio::time::Instant;
use weir_config::model::Isolation;
use weir_vmm::VmId;

use super::Owner;
use crate::decide::{Decision, Limits, View, busy_again, decide, revocations};
use crate::drive::drive;
use crate::launcher::StartOrder;

impl Owner {
    pub(super) fn scale(&mut self, min: u32, now: Instant) -> Option<Instant> {
        // Before looking, so that what comes too late to be seen wakes; `publish` takes it back.
        self.shared.set_may_grow(true);
        let config = self.shared.config.clone();
        let vms = self.roster.views();
        let view = View {
            limits: Limits {
                min,
                max: config.scale.max,
                soft_limit: config.soft_limit,
                idle_timeout: config.scale.idle_timeout,
                connections: config.isolation == Isolation::Connection,
            },
            queued: self.shared.waiting(),
            vms: &vms,
            retry: self.backoff.retry(now),
        };
        let decision = decide(&view, now);
        self.shared.metrics.desired.set(decision.desired.into());
        let missed = self.retire(&decision);
        let started = self.start(decision.start, now);
        self.revoke(&revocations(&view, &decision.retire, started, now));
        let retry = missed.then(|| now + busy_again(config.scale.idle_timeout));
        decision.look_again.into_iter().chain(retry).min()
    }

    /// Whether one of them is not idle any more.
    fn retire(&mut self, decision: &Decision) -> bool {
        let mut missed = 0;
        for id in &decision.retire {
            if self.roster.retire(*id) {
                tracing::info!(pool = self.shared.config.name, vm = %id, "vm idle");
            } else {
                missed += 1;
            }
        }
        self.need_not_replace(u32::try_from(decision.retire.len() - missed).unwrap_or(u32::MAX));
        missed > 0
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
    pub(super) fn start(&mut self, count: u32, now: Instant) -> u32 {
        let was_starved = std::mem::take(&mut self.starved);
        for started in 0..count {
            let Some(room) = self.share.reserve() else {
                self.starved = true;
                if !was_starved {
                    tracing::warn!(pool = self.shared.config.name, "host budget exhausted, vm start waits");
                }
                return started;
            };
            let revision = self.rollout.revision();
            let id = VmId(self.ids.fetch_add(1, Relaxed));
            tracing::info!(pool = self.shared.config.name, vm = %id, "vm starting");
            let order = StartOrder { id, pool: self.shared.config.clone(), revision };
            let (stop, stopped) = oneshot::channel();
            self.roster.starting(id, revision, stop, room, now);
            tokio::spawn(drive(self.launcher.clone(), order, stopped, self.shared.clone()));
        }
        count
    }
}
