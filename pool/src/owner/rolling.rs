//! Draining and restarting the pool when somebody asks for it.

use std::error::Error;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::Ordering::Relaxed;

use futures::future::FutureExt;
use tokio::sync::oneshot;
use tokio::time::Instant;
use weir_vmm::VmId;

use super::{Event, Owner};
use crate::backoff::Backoff;
use crate::guest_log::printable;
use crate::launcher::{Prepared, Revision};
use crate::rollout::{Draining, RestartError, Restarting, Step, View, step};
use crate::status::PoolStatus;

impl Owner {
    /// Has a new revision made; its VMs replace all others once it is.
    pub(super) fn restart(&mut self) -> Result<Restarting, RestartError> {
        if self.shutdown.is_some() {
            return Err(RestartError::ShuttingDown);
        }
        let (revision, outcome) = self.rollout.begin().ok_or(RestartError::InProgress)?;
        tracing::info!(pool = self.shared.name, revision = revision.0, "restart begins");
        let machines = self.next_machines();
        let preparing = self.launcher.prepare(machines, revision);
        let events = self.shared.events.clone();
        tokio::spawn(async move {
            // Images come from outside. Were the end of a preparation lost, no restart would ever begin again.
            let made = match AssertUnwindSafe(preparing).catch_unwind().await {
                Ok(made) => made.map_err(|error| with_causes(&error)),
                Err(_) => Err("its preparation panicked".to_owned()),
            };
            // An owner that is gone has no interest.
            drop(events.send(Event::Prepared { revision, made }));
        });
        Ok(Restarting(outcome))
    }

    /// The revision that a restart waits for is there, or will not be.
    pub(super) fn prepared(&mut self, revision: Revision, made: Result<Prepared, String>) {
        match made {
            Ok(Prepared { image_changed }) => {
                let vms = self.roster.live();
                let pool = &self.shared.name;
                if self.rollout.made(revision, vms, image_changed) {
                    tracing::info!(pool, revision = revision.0, image_changed, vms, "replacing vms");
                    // What failed before was of another revision.
                    self.backoff = Backoff::default();
                    self.machines_made();
                } else {
                    self.launcher.settle(pool, self.rollout.revision());
                }
            }
            Err(reason) => self.end_restart(RestartError::Failed { reason: printable(&reason) }),
        }
    }

    /// How many VMs a replacement that is under way needs now.
    pub(super) fn replacements(&mut self, now: Instant) -> u32 {
        self.step(self.places(), now).map_or(0, |step| step.start)
    }

    /// Takes out what has been replaced, or has to make room; when to look again.
    pub(super) fn roll(&mut self, now: Instant) -> Option<Instant> {
        let next = self.step(if self.starved { 0 } else { self.places() }, now)?;
        for id in &next.take_out {
            tracing::info!(pool = self.shared.name, vm = %id, "vm is replaced, draining");
            self.roster.take_out(*id);
        }
        let rolling = self.rollout.rolling()?;
        rolling.proven = next.proven;
        rolling.replaced = rolling.replaced.saturating_add(saturating(next.take_out.len()));
        if next.done {
            let word = self.rollout.replaced();
            self.settle(word);
        }
        // There may be a replacement to start for what was taken out, and after the end scaling may take VMs again.
        if next.done || !next.take_out.is_empty() { Some(now) } else { next.look_again }
    }

    /// How many more processes the pool may have.
    fn places(&self) -> u32 {
        self.shared.config().scale.max.saturating_sub(self.roster.instances().total())
    }

    fn step(&mut self, room: u32, now: Instant) -> Option<Step> {
        let revision = self.rollout.revision();
        let rolling = self.rollout.rolling()?;
        let (target, proven) = (rolling.target, rolling.proven);
        let (vms, retry) = (self.roster.rollout_views(revision), self.backoff.retry(now));
        let view = View { target, vms: &vms, room, due: self.due, retry, proven };
        Some(step(&view, now))
    }

    /// A VM failed before it had lasted. `revision`: what it was made from, if that may be the cause.
    pub(super) fn doubt(&mut self, revision: Option<Revision>, reason: &str) {
        let current = self.rollout.revision();
        match self.rollout.on_trial(current) {
            // One may be killed by the requests of one client, who shall not be able to prevent a restart.
            Some(proven) => {
                let at_once = revision == Some(current) && !proven;
                if at_once || self.backoff.is_repeated() {
                    self.turn_back(reason);
                }
            }
            // What is being gone back to does not come up either: no reason to try on.
            None if self.rollout.is_rolling() => {
                let word = self.rollout.replaced();
                self.settle(word);
            }
            None => {}
        }
    }

    fn turn_back(&mut self, reason: &str) {
        let failed = self.rollout.revision();
        if self.rollout.turn_back(printable(reason)) {
            let pool = &self.shared.name;
            tracing::warn!(pool, revision = failed.0, reason, "new vms fail, rolling back");
            self.roster.take_out_all(failed);
            self.backoff = Backoff::default();
            self.machines_failed();
        }
    }

    /// There is no replacement, or none any more, for `error`.
    pub(super) fn end_restart(&mut self, error: RestartError) {
        let word = self.rollout.end(Err(error.clone()));
        if word.is_some() {
            tracing::warn!(pool = self.shared.name, %error, "restart failed");
        }
        self.settle(word);
    }

    /// A restart has ended, which is counted as `word`.
    fn settle(&mut self, word: Option<&'static str>) {
        let Some(result) = word else { return };
        let (pool, revision) = (&self.shared.name, self.rollout.revision());
        self.shared.metrics.rolled_out(result);
        self.launcher.settle(pool, revision);
        tracing::info!(pool, revision = revision.0, result, "restart ended");
        self.machines_settled();
        self.replace_outdated();
    }

    /// Takes out all VMs that there are now.
    pub(super) fn drain(&mut self) -> Draining {
        let vms = self.roster.live();
        tracing::info!(pool = self.shared.name, vms, "draining the pool");
        self.roster.drain_all();
        let gone = self.drains.add(VmId(self.ids.load(Relaxed)));
        Draining { vms, gone }
    }

    pub(super) fn status(&self, now: Instant, reply: oneshot::Sender<PoolStatus>) {
        let shared = &self.shared;
        let status = PoolStatus {
            instances: self.roster.instances(),
            queued: shared.waiting(),
            desired: u32::try_from(shared.metrics.desired.get()).unwrap_or(0),
            template: self.launcher.has_template(&shared.name),
            revision: self.rollout.revision(),
            rollout: self.rollout.stage(),
            vms: self.roster.statuses(now),
        };
        // Whoever asked may have gone away meanwhile.
        let _ = reply.send(status);
    }
}

/// An error and its causes, on one line.
fn with_causes(error: &(dyn Error + 'static)) -> String {
    let all = std::iter::successors(Some(error), |&error: &&(dyn Error + 'static)| error.source());
    all.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

fn saturating(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
