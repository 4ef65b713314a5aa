//! Which ready VM a request enters: power of two choices on requests in flight.
//!
//! Two random VMs are looked at and the less busy one is taken, which keeps the load even without a shared counter
//! (Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing"). Busy is who has many requests for its weight;
//! those of a VM that answers clearly more slowly than the other count for more, see [`latency`]. Below the soft limit
//! comes first: only when every VM has reached it do requests go up to the hard limit. Of two equally busy VMs the older
//! one is taken, so that in quiet times the youngest run idle and can go; servers outside do not go, so of two of them either.
//!
//! Where both are full, [`room`] says which VMs may not be. So the cost depends neither on how many VMs there are nor on
//! how full they are. What it says may be late by a moment; the first request that has to wait looks at all of them once.
//!
//! A request that wants to come back to a VM is asked first, see [`rank`].
//!
//! An isolated VM has room for one tenancy or none, so that both limits are one.

mod latency;
mod rank;
mod room;

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use weir_config::model::{self, Isolation};

pub(crate) use latency::Latency;
pub use rank::Member;
use room::Room;

use crate::gate::{Gate, State};
use crate::vm::Vm;

/// The VMs that take requests, oldest first, and where there may be room. It is never changed, but for the hints.
#[derive(Debug, Default)]
pub(crate) struct Ready {
    vms: Vec<Arc<Vm>>,
    isolation: Isolation,
    /// Equally busy ones get equally many requests.
    even: bool,
    soft: u32,
    hard: u32,
    below_soft: Room,
    below_hard: Room,
}

/// A place taken in a VM's gate.
#[derive(Debug)]
pub(crate) struct Entered<'a> {
    pub(crate) vm: &'a Arc<Vm>,
    /// All VMs had reached the soft limit: the pool is too small.
    pub(crate) above_soft: bool,
}

impl Ready {
    /// These VMs, in a pool with these limits.
    pub(crate) fn new(vms: Vec<Arc<Vm>>, config: &model::Pool) -> Self {
        for (position, vm) in (0..).zip(&vms) {
            vm.position.store(position, Relaxed);
        }
        Self {
            isolation: config.isolation,
            even: config.external().is_some(),
            soft: config.soft_limit.min(config.hard_limit),
            hard: config.hard_limit,
            below_soft: Room::new(vms.len()),
            below_hard: Room::new(vms.len()),
            vms,
        }
    }

    /// Enters one of the VMs, if any has room; for a new tenancy where VMs are isolated. `random` is uniform.
    pub(crate) fn enter(&self, random: u64) -> Option<Entered<'_>> {
        let pair = self.pair(random)?;
        if self.soft < self.hard
            && let Some(index) = self.enter_below(self.soft, &self.below_soft, pair)
        {
            return Some(Entered { vm: &self.vms[index], above_soft: false });
        }
        let index = self.enter_below(self.hard, &self.below_hard, pair)?;
        Some(Entered { vm: &self.vms[index], above_soft: self.soft < self.hard })
    }

    /// The same, but up to `limit`, and so that no place is overlooked: where there is no other, all VMs are tried.
    pub(crate) fn enter_any(&self, limit: u32, random: u64) -> Option<&Arc<Vm>> {
        let pair = self.pair(random)?;
        let soft = if self.soft < limit { self.enter_below(self.soft, &self.below_soft, pair) } else { None };
        let (before, from) = self.vms.split_at(pair.0);
        let all = || from.iter().chain(before).find(|vm| enter_this(vm, self.isolation, limit));
        soft.map(|index| &self.vms[index]).or_else(all)
    }

    fn enter_below(&self, limit: u32, room: &Room, (first, second): (usize, usize)) -> Option<usize> {
        let enter = |index: usize| enter_this(&self.vms[index], self.isolation, limit);
        let has_room = |index: usize| self.vms[index].gate.has_room(limit);
        let chosen = [first, second].into_iter().find(|index| enter(*index));
        let index = chosen.or_else(|| room.find(second, enter, has_room))?;
        if !has_room(index) {
            room.used_up(index, || has_room(index));
        }
        Some(index)
    }

    /// There is room for one in `vm` again, `inside` others are in it.
    pub(crate) fn made_room(&self, vm: &Arc<Vm>, inside: u32) {
        // Elsewhere it had room before.
        let rooms = [(self.soft, &self.below_soft), (self.hard, &self.below_hard)];
        for (_, room) in rooms.into_iter().filter(|(limit, _)| inside + 1 == *limit) {
            let position = vm.position.load(Relaxed) as usize;
            // In a list that is being replaced it need not be; the new one says of all that they may have room.
            if self.vms.get(position).is_some_and(|there| Arc::ptr_eq(there, vm)) {
                room.made(position);
            }
        }
    }

    /// Two random VMs, the better one first; one VM is both.
    fn pair(&self, random: u64) -> Option<(usize, usize)> {
        // A half of the random number for each: a product's upper half is as good as uniform in a range so small (D.
        // Lemire, "Fast Random Integer Generation in an Interval", 2019).
        let below = |count: usize, half: u64| ((count as u64 * half) >> 32) as usize;
        match self.vms.len() {
            0 => None,
            1 => Some((0, 0)),
            count => {
                let (a, b) = (below(count, random & u64::from(u32::MAX)), below(count - 1, random >> 32));
                // Two different ones, by skipping `a` in `b`'s range.
                let b = if b >= a { b + 1 } else { b };
                let (older, younger) = if self.even { (a, b) } else { (a.min(b), a.max(b)) };
                let is_better = less_busy(Candidate::of(&self.vms[younger]), Candidate::of(&self.vms[older]));
                Some(if is_better { (younger, older) } else { (older, younger) })
            }
        }
    }
}

impl Deref for Ready {
    type Target = [Arc<Vm>];

    fn deref(&self) -> &[Arc<Vm>] {
        &self.vms
    }
}

/// Enters this one, if it has room below `hard`, or for a new tenancy; whether it had.
pub(crate) fn enter_this(vm: &Vm, isolation: Isolation, hard: u32) -> bool {
    match isolation {
        Isolation::Vm => vm.gate.enter(hard).is_some(),
        Isolation::Connection | Isolation::Request => vm.gate.occupy(),
    }
}

/// What is looked at of a VM to choose between it and another; of a real one or a simulated one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate<'v> {
    /// Requests in flight; at least one where no request can enter.
    pub(crate) requests: u32,
    /// Share of the requests, [`NORMAL`](crate::signal::NORMAL) for most.
    pub(crate) weight: u32,
    pub(crate) latency: &'v Latency,
}

impl<'v> Candidate<'v> {
    fn of(vm: &'v Vm) -> Self {
        Self { requests: business(&vm.gate), weight: vm.weight.load(Relaxed), latency: &vm.latency }
    }
}

/// Whether `a` is less busy than `b`.
pub(crate) fn less_busy(a: Candidate<'_>, b: Candidate<'_>) -> bool {
    let requests = [a, b].map(|vm| u128::from(vm.requests) + 1);
    let weights = [a, b].map(|vm| u128::from(vm.weight));
    let is_less = |(slow_a, slow_b): (u64, u64)| {
        requests[0] * weights[1] * u128::from(slow_a) < requests[1] * weights[0] * u128::from(slow_b)
    };
    let ratio = a.latency.ratio(b.latency);
    let a_is_less = is_less(ratio);
    if ratio != (1, 1) && a_is_less != is_less((1, 1)) {
        let slower = if a_is_less { b } else { a };
        slower.latency.passed_over();
    }
    a_is_less
}

/// Requests in flight; one that no request can enter now, though it has none, counts as having one.
fn business(gate: &Gate) -> u32 {
    match gate.state() {
        (in_flight, State::Free) => in_flight,
        (in_flight, _) => in_flight.max(1),
    }
}

#[cfg(test)]
mod tests;
