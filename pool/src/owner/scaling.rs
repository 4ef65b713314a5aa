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
        let demand = demand(limits, queued, &vms, now);
        let averages = self.windows.observe(demand, live(&vms), now);
        let view = View {
            retry: self.backoff.retry(now),
            averages,
            keep: self.keep_alive.observe(limits, demand, &vms, now),
            panic: self.panic,
            week_time: WeekTime::of(SystemTime::now()),
            signal: self.signal(now),
            ..View::new(limits, queued, &vms)
        };
        let (view, mut decision) = self.within_budget(view, now);
        if self.rollout.is_rolling() {
            // To scaling, replacements beside what they replace are surplus, and it would take them away again. Only what
            // others wait for goes.
            decision.retire.truncate(view.reclaim as usize);
            decision.drain.truncate(view.reclaim as usize - decision.retire.len());
        }
        self.panic = decision.panic;
        self.shared.metrics.desired.set(decision.desired.into());
        self.shared.metrics.panic.set(decision.panic.is_some().into());
        let missed = self.retire(&decision, view.reclaim, now);
        let count = decision.start.max(self.replacements(now));
        let started = self.start(count, decision.short, now);
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
        let eased = self.roster.eased();
        let ask = ask(&view, &decision, eased);
        let answer = self.share.ask(ask);
        self.due = live(view.vms).saturating_add(answer.room).saturating_sub(answer.reclaim);
        if answer.reclaim == 0 && answer.room >= decision.start {
            return (view, decision);
        }
        // What works goes last.
        let idle = ask.idle - eased;
        let reclaim = answer.reclaim - self.roster.hurry(answer.reclaim.saturating_sub(idle));
        let view = View { room: answer.room, reclaim, ..view };
        (view, decide(&view, now))
    }

    /// Whether one of them is not idle any more. So many the host wants back, working or not.
    fn retire(&mut self, decision: &Decision, mut reclaim: u32, now: Instant) -> bool {
        let config = self.shared.config();
        let scale = &config.scale;
        let (mut missed, mut may_ease) = (false, self.roster.may_be_eased_out());
        for id in &decision.retire {
            let rule = Rule { idle_timeout: scale.idle_timeout, reclaim: reclaim > 0 };
            if scale.idle == Idle::Parked && !self.roster.is_idle(*id, rule, now) {
                // It works, or the answer is an event; or it would never be known.
                if may_ease > 0 && self.roster.is_in_use(*id, rule, now) && self.roster.ease_out(*id) {
                    may_ease -= 1;
                }
                continue;
            }
            if self.roster.retire(*id) {
                reclaim = reclaim.saturating_sub(1);
                tracing::info!(pool = self.shared.name, vm = %id, "vm idle");
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
                tracing::info!(pool = self.shared.name, vm = %id, "vm not needed any more, draining");
            }
        }
        missed
    }

    /// Whether a VM that is due is idle is known now.
    pub(super) fn reported(&mut self, id: VmId, quiet: Option<Duration>, now: Instant) {
        if let Some(found) = self.roster.reported(id, quiet, now) {
            self.shared.metrics.idle_checked(found);
            tracing::debug!(pool = self.shared.name, vm = %id, ?found, ?quiet, "vm due for being idle");
        }
    }

    fn revoke(&mut self, ids: &[VmId]) {
        for id in ids {
            // One that has a request again keeps its VM; who waits will look again when that has ended.
            if let Some(vm) = self.roster.revoke(*id) {
                tracing::debug!(pool = self.shared.name, vm = %id, "vm taken from an idle connection");
                self.shared.reset(vm);
            }
        }
    }

    /// Starts `count`, as far as it is this pool's turn and the host has room; `short` are missing for want of room
    /// already. How many will come.
    fn start(&mut self, count: u32, short: u32, now: Instant) -> u32 {
        let turns = self.share.turns(count);
        let granted = u32::try_from(turns.len()).unwrap_or(u32::MAX);
        let (mut turns, mut started) = (turns.into_iter(), 0);
        for turn in turns.by_ref() {
            let Some(room) = self.share.reserve() else { break };
            self.start_one((room, turn), now);
            started += 1;
        }
        let lacking = short.saturating_add(granted - started);
        let starved = lacking > 0;
        // Rather than a VM that others, and it itself, have no use for.
        self.roster.hurry(lacking);
        if started < granted {
            // There is no use in a turn without room.
            drop(self.share.turns(0));
        }
        if starved && !std::mem::replace(&mut self.starved, starved) {
            tracing::warn!(pool = self.shared.name, "host budget exhausted, vm start waits");
        }
        self.starved = starved;
        self.shared.metrics.starts_waiting.set(self.share.starts_waiting().into());
        started + self.share.starts_waiting()
    }

    fn start_one(&mut self, place: (Reservation, Turn), now: Instant) {
        let (id, revision) = (VmId(self.ids.fetch_add(1, Relaxed)), self.rollout.revision());
        tracing::info!(pool = self.shared.name, vm = %id, "vm starting");
        let order = StartOrder { id, pool: self.shared.config(), revision };
        let (stop, stopped) = oneshot::channel();
        self.roster.starting(id, revision, stop, place, now);
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
