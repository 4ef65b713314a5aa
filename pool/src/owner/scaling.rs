//! From what scaling decides to what the owner does.

use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, SystemTime};

use tokio::sync::oneshot;
use tokio::time::Instant;
use weir_config::model::Idle;
use weir_vmm::VmId;

use super::Owner;
use crate::budget::{Ask, Reservation, Turn};
use crate::drive::drive;
use crate::idle::Rule;
use crate::launcher::StartOrder;
use crate::scale::{
    Decision, Limits, Phase, View, VmView, WeekTime, decide, demand, live, look_after_miss, revocations,
};

impl Owner {
    /// With these limits, decides and does.
    pub(super) fn scale(&mut self, limits: &Limits, now: Instant) -> Option<Instant> {
        // Before looking, so that what comes too late to be seen wakes; `publish` takes it back.
        self.shared.set_may_grow(true);
        let vms = self.roster.views();
        // What was not let wait wants a VM all the same.
        let queued = self.shared.waiting() + self.shared.take_rejected();
        let averages = self.windows.observe(demand(limits, queued, &vms, now), live(&vms), now);
        let view = View {
            retry: self.backoff.retry(now),
            averages,
            panic: self.panic,
            week_time: WeekTime::of(SystemTime::now()),
            signal: self.signal(now),
            ..View::new(limits, queued, &vms)
        };
        let (view, decision) = self.within_budget(view, now);
        self.panic = decision.panic;
        self.shared.metrics.desired.set(decision.desired.into());
        self.shared.metrics.panic.set(decision.panic.is_some().into());
        let missed = self.retire(&decision, view.reclaim > 0, now);
        let started = self.start(decision.start, decision.short, now);
        self.revoke(&revocations(&view, &decision.retire, started, now));
        let retry = missed.then(|| now + look_after_miss(&view));
        decision.look_again.into_iter().chain(retry).min()
    }

    /// VMs that the guests ask for. Without a VM nobody asks: it wakes no pool.
    fn signal(&self, now: Instant) -> Option<u32> {
        self.shared.signalled.wanted(now).filter(|_| self.roster.ready_vms().next().is_some())
    }

    /// What to do, given what the host has room for and what other pools are short of.
    fn within_budget<'a>(&mut self, view: View<'a>, now: Instant) -> (View<'a>, Decision) {
        let decision = decide(&view, now);
        let answer = self.share.ask(ask(&view, &decision, self.roster.eased()));
        if answer.reclaim == 0 && answer.room >= decision.start {
            return (view, decision);
        }
        let reclaim = answer.reclaim - self.roster.hurry(answer.reclaim);
        let view = View { room: answer.room, reclaim, ..view };
        (view, decide(&view, now))
    }

    /// Whether one of them is not idle any more. `reclaim`: the host wants them back.
    fn retire(&mut self, decision: &Decision, reclaim: bool, now: Instant) -> bool {
        let scale = &self.shared.config.scale;
        let rule = Rule { idle_timeout: scale.idle_timeout, reclaim };
        let mut missed = false;
        for id in &decision.retire {
            if scale.idle == Idle::Parked && !self.roster.is_idle(*id, rule, now) {
                // It works, or the answer is an event; or it would never be known.
                self.roster.ease_out_if_in_use(*id, rule, now);
                continue;
            }
            if self.roster.retire(*id) {
                tracing::info!(pool = self.shared.config.name, vm = %id, "vm idle");
            } else {
                missed = true;
            }
        }
        for id in &decision.drain {
            let drains = match scale.idle {
                Idle::Parked => self.roster.ease_out(*id),
                Idle::Unused => self.roster.drain(*id).is_some(),
            };
            if drains {
                tracing::info!(pool = self.shared.config.name, vm = %id, "vm not needed any more, draining");
            }
        }
        missed
    }

    /// Whether a VM that is due is idle is known now.
    pub(super) fn reported(&mut self, id: VmId, quiet: Option<Duration>, now: Instant) {
        if let Some(found) = self.roster.reported(id, quiet, now) {
            self.shared.metrics.idle_checked(found);
            tracing::debug!(pool = self.shared.config.name, vm = %id, ?found, ?quiet, "vm due for being idle");
        }
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

    /// Starts `count`, as far as it is this pool's turn and the host has room; `short` are missing for want of room
    /// already. How many will come.
    fn start(&mut self, count: u32, short: u32, now: Instant) -> u32 {
        let mut turns = self.share.turns(count).into_iter();
        let mut started = 0;
        for turn in turns.by_ref() {
            let Some(room) = self.share.reserve() else { break };
            self.start_one((room, turn), now);
            started += 1;
        }
        let waiting = self.share.starts_waiting();
        let starved = short > 0 || started + waiting < count;
        if started + waiting < count {
            // There is no use in a turn without room.
            drop(self.share.turns(0));
        }
        if starved && !std::mem::replace(&mut self.starved, starved) {
            tracing::warn!(pool = self.shared.config.name, "host budget exhausted, vm start waits");
        }
        self.starved = starved;
        self.shared.metrics.starts_waiting.set(self.share.starts_waiting().into());
        started + self.share.starts_waiting()
    }

    fn start_one(&mut self, place: (Reservation, Turn), now: Instant) {
        let id = VmId(self.ids.fetch_add(1, Relaxed));
        tracing::info!(pool = self.shared.config.name, vm = %id, "vm starting");
        let order = StartOrder { id, pool: self.shared.config.clone() };
        let (stop, stopped) = oneshot::channel();
        self.roster.starting(id, stop, place, now);
        tokio::spawn(drive(self.launcher.clone(), order, stopped, self.shared.clone()));
    }
}

/// What the budget is to know of the pool. What it wants but may not start yet it has no use for: others have. `eased`
/// VMs drain without a request, but may take their time unless somebody waits for them.
fn ask(view: &View<'_>, decision: &Decision, eased: u32) -> Ask {
    let count = |condition: &dyn Fn(&VmView) -> bool| {
        u32::try_from(view.vms.iter().filter(|vm| condition(vm)).count()).unwrap_or(u32::MAX)
    };
    Ask {
        min: decision.min,
        want: decision.desired.min(live(view.vms).saturating_add(decision.start)),
        leaving: count(&|vm| matches!(vm.phase, Phase::Draining | Phase::Stopping)).saturating_sub(eased),
        idle: count(&|vm| vm.phase == Phase::Ready && vm.in_flight == 0 && !vm.held).saturating_add(eased),
    }
}
