//! What a decision depends on, but for the time.

use std::time::Duration;

use tokio::time::Instant;
use weir_config::model::{Isolation, Pool, Schedule, Thousandths};
use weir_vmm::VmId;

use super::{Averages, Panic, WeekTime, saturating};

/// The part of a pool's configuration that scaling depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// VMs kept even when idle.
    pub min: u32,
    /// Minimums for times of the week.
    pub schedule: Vec<Schedule>,
    /// VMs never exceeded.
    pub max: u32,
    /// Requests in flight per VM that are aimed at; none counts as one.
    pub soft_limit: u32,
    /// Requests in flight per VM that are never exceeded; at least one.
    pub hard_limit: u32,
    /// How long a VM that is not wanted may be without a request.
    pub idle_timeout: Duration,
    /// How long the last one may be, if requests come back to it. What is less than `idle_timeout` counts as that.
    pub keep_last: Duration,
    /// When a VM goes back to its snapshot.
    pub isolation: Isolation,
    /// See [`weir_config::model::Scale`], as for those that follow.
    pub stable_window: Duration,
    /// A sudden demand is seen in its average over this time.
    pub panic_window: Duration,
    /// So many times what the ready VMs are for is a sudden demand.
    pub panic_threshold: Thousandths,
    /// One decision wants at most so many times the ready VMs.
    pub max_up_rate: Thousandths,
    /// Within one panic window at most this divides the number of VMs.
    pub max_down_rate: Thousandths,
}

impl Limits {
    /// Those of `pool`.
    pub fn of(pool: &Pool) -> Self {
        let scale = &pool.scale;
        Self {
            min: scale.min,
            schedule: scale.schedule.clone(),
            max: scale.max,
            soft_limit: pool.soft_limit,
            hard_limit: pool.hard_limit,
            idle_timeout: scale.idle_timeout,
            keep_last: scale.keep_last,
            isolation: pool.isolation,
            stable_window: scale.stable_window,
            panic_window: scale.panic_window,
            panic_threshold: scale.panic_threshold,
            max_up_rate: scale.max_up_rate,
            max_down_rate: scale.max_down_rate,
        }
    }

    /// The same, but nothing is kept.
    pub(crate) fn without_minimum(&self) -> Self {
        Self { min: 0, schedule: Vec::new(), ..self.clone() }
    }

    /// VMs that it takes for so many requests.
    pub(super) fn vms_for(&self, requests: u64) -> u32 {
        saturating(requests.div_ceil(u64::from(self.soft_limit.max(1))))
    }
}

/// Where a VM is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Not READY yet.
    Starting,
    /// Takes requests.
    Ready,
    /// Was ready, and will be again when what its last user left behind is gone.
    Resetting,
    /// Takes no new ones, still has some.
    Draining,
    /// Its process is being ended.
    Stopping,
}

impl Phase {
    /// Whether it is or will be of use.
    pub(super) fn is_live(self) -> bool {
        matches!(self, Self::Starting | Self::Ready | Self::Resetting)
    }
}

/// A VM as scaling sees it.
#[derive(Clone, Copy, Debug)]
pub struct VmView {
    /// Which.
    pub id: VmId,
    /// Where in its life.
    pub phase: Phase,
    /// Requests in flight; at most one where it is isolated.
    pub in_flight: u32,
    /// A connection holds it, also when it has no request in flight.
    pub held: bool,
    /// Since when it has had none; only meaningful for a ready VM with none.
    pub idle_since: Instant,
}

/// What earlier failures leave of the right to start VMs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// No reservation.
    Free,
    /// The last start failed: one at a time.
    Probe,
    /// Not before then, and then one.
    At(Instant),
}

/// Everything that a decision depends on, but the time.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// Configured limits.
    pub limits: &'a Limits,
    /// Requests that wait.
    pub queued: usize,
    /// All processes that are not gone.
    pub vms: &'a [VmView],
    /// What failures leave.
    pub retry: Retry,
    /// What [`Windows::observe`](super::Windows::observe) says of the demand so far.
    pub averages: Averages,
    /// What [`KeepAlive::observe`](super::KeepAlive::observe) says. Less than the idle timeout counts as that.
    pub keep: Duration,
    /// [`Decision::panic`](super::Decision::panic) of the decision before.
    pub panic: Option<Panic>,
    /// For the schedule.
    pub week_time: WeekTime,
    /// VMs that the guests' own metric asks for.
    pub signal: Option<u32>,
    /// VMs more that the host has room for.
    pub room: u32,
    /// VMs that the host wants back for pools that have less than their share. Below the minimum none is given.
    pub reclaim: u32,
}

impl<'a> View<'a> {
    /// A pool with these VMs and this queue, and nothing else of note: no history, and a host with room for all.
    pub fn new(limits: &'a Limits, queued: usize, vms: &'a [VmView]) -> Self {
        Self {
            limits,
            queued,
            vms,
            retry: Retry::Free,
            averages: Averages::default(),
            keep: Duration::ZERO,
            panic: None,
            week_time: WeekTime::default(),
            signal: None,
            room: u32::MAX,
            reclaim: 0,
        }
    }

    pub(super) fn of(&self, phase: Phase) -> impl Iterator<Item = &'a VmView> {
        self.vms.iter().filter(move |vm| vm.phase == phase)
    }

    /// VMs that take requests, or will in a moment.
    pub(super) fn usable(&self) -> u32 {
        saturating(self.of(Phase::Ready).chain(self.of(Phase::Resetting)).count())
    }

    pub(super) fn demand(&self, now: Instant) -> u64 {
        demand(self.limits, self.queued, self.vms, now)
    }
}

/// What there is to do, requests: those that wait and those in flight where others still go; and one for each
/// connection that holds a VM.
pub fn demand(limits: &Limits, queued: usize, vms: &[VmView], now: Instant) -> u64 {
    let on = |vm: &VmView| {
        let held_idle = vm.held && now < vm.idle_since + limits.idle_timeout;
        u64::from(vm.in_flight.max(u32::from(held_idle)))
    };
    let used = vms.iter().filter(|vm| vm.phase == Phase::Ready).map(on).sum::<u64>();
    used.saturating_add(queued as u64)
}

/// VMs that are or will be of use.
pub fn live(vms: &[VmView]) -> u32 {
    saturating(vms.iter().filter(|vm| vm.phase.is_live()).count())
}
