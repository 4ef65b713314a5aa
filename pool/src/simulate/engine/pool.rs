//! One simulated pool: its VMs, its queue, and which request goes to which VM.
//!
//! The rules are production's, on plain numbers instead of atomic words: the power of two choices with the soft limit first, for
//! which `choice` says which of two VMs is less busy, and the spreading of queued requests over VMs that are still starting
//! (`owner`).

use std::collections::VecDeque;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::time::Instant;
use weir_config::model::{Isolation, Pool};
use weir_vmm::VmId;

use crate::choice::{Candidate, Latency, less_busy};
use crate::owner::SPREAD;
use crate::scale::{Phase, VmView};
use crate::signal::NORMAL;

/// A VM in a simulation.
#[derive(Debug)]
pub(super) struct SimVm {
    pub(super) view: VmView,
    pub(super) started_at: Instant,
    pub(super) ready_at: Option<Instant>,
    /// How many times as long as others it takes.
    pub(super) slowness: f64,
    /// As measured; not known where policies do not look at it.
    pub(super) latency: Latency,
}

/// A request that waits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiting {
    pub(super) since: Instant,
    pub(super) service: Duration,
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct SimPool<'c> {
    pub(super) config: &'c Pool,
    /// Oldest first.
    pub(super) vms: Vec<SimVm>,
    pub(super) queue: VecDeque<Waiting>,
    random: StdRng,
    /// How far requests from the queue may fill a VM.
    queued_limit: u32,
}

/// A place in a VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) vm: VmId,
    /// All VMs had reached the soft limit.
    pub(super) above_soft: bool,
}

impl<'c> SimPool<'c> {
    pub(super) fn new(config: &'c Pool, seed: u64) -> Self {
        let random = StdRng::seed_from_u64(seed);
        Self { config, vms: Vec::new(), queue: VecDeque::new(), random, queued_limit: config.hard_limit }
    }

    pub(super) fn vm(&mut self, id: VmId) -> Option<&mut SimVm> {
        let at = self.vms.binary_search_by_key(&id, |vm| vm.view.id).ok()?;
        Some(&mut self.vms[at])
    }

    pub(super) fn remove(&mut self, id: VmId) -> Option<SimVm> {
        let at = self.vms.binary_search_by_key(&id, |vm| vm.view.id).ok()?;
        Some(self.vms.remove(at))
    }

    pub(super) fn count(&self, phase: Phase) -> usize {
        self.vms.iter().filter(|vm| vm.view.phase == phase).count()
    }

    /// Takes a place for a request that comes when nobody waits.
    pub(super) fn enter_warm(&mut self) -> Option<Place> {
        if self.queue.is_empty() { self.enter(self.config.hard_limit) } else { None }
    }

    /// Takes a place for the request that has waited longest.
    pub(super) fn enter_queued(&mut self) -> Option<(Waiting, VmId)> {
        self.queue.front()?;
        let place = self.enter(self.queued_limit)?;
        self.queue.pop_front().map(|waiting| (waiting, place.vm))
    }

    fn enter(&mut self, hard: u32) -> Option<Place> {
        let soft = self.config.soft_limit.min(hard);
        let below =
            |pool: &mut Self, limit, above_soft| pool.enter_below(limit).map(|vm| Place { vm, above_soft });
        below(self, soft, false).or_else(|| below(self, hard, true))
    }

    fn enter_below(&mut self, limit: u32) -> Option<VmId> {
        let in_choice = |vm: &&mut SimVm| matches!(vm.view.phase, Phase::Ready | Phase::Resetting);
        let mut vms: Vec<_> = self.vms.iter_mut().filter(in_choice).collect();
        let count = vms.len();
        let first = match count {
            0 => return None,
            1 => 0,
            _ => {
                let (a, b) = (self.random.random_range(0..count), self.random.random_range(0..count - 1));
                let b = if b >= a { b + 1 } else { b };
                let (older, younger) = (a.min(b), a.max(b));
                if less_busy(candidate(vms[younger]), candidate(vms[older])) { younger } else { older }
            }
        };
        let open = |vm: &VmView| vm.phase == Phase::Ready && vm.in_flight < limit;
        let at = (0..count).map(|step| (first + step) % count).find(|at| open(&vms[*at].view))?;
        vms[at].view.in_flight += 1;
        Some(vms[at].view.id)
    }

    /// Sets how far queued requests may fill a VM; until when that holds if nothing happens.
    pub(super) fn spread(&mut self, now: Instant) -> Option<Instant> {
        let starting = self.count(Phase::Starting);
        let latest =
            self.vms.iter().filter(|vm| vm.view.phase == Phase::Ready).filter_map(|vm| vm.ready_at).max();
        let until = latest.map(|at| at + SPREAD).filter(|at| starting > 0 && now < *at);
        let (soft, hard) = (self.config.soft_limit, self.config.hard_limit);
        self.queued_limit = match until {
            Some(_) => {
                let fair = self.queue.len().div_ceil(starting + 1);
                u32::try_from(fair).unwrap_or(u32::MAX).max(soft).min(hard)
            }
            None => hard,
        };
        until
    }

    /// Whether a VM goes back to its snapshot when a request has left it.
    pub(super) fn resets(&self) -> bool {
        self.config.isolation != Isolation::Vm
    }
}

/// One that no request can enter now counts as having one.
fn candidate(vm: &SimVm) -> Candidate<'_> {
    let VmView { phase, in_flight, .. } = vm.view;
    let requests = if phase == Phase::Ready { in_flight } else { in_flight.max(1) };
    Candidate { requests, weight: NORMAL, latency: &vm.latency }
}
