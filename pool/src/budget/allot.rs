//! How the host is divided between pools that want more of it than there is.
//!
//! Weighted max-min fairness over two resources, memory and VMs: dominant resource fairness (Ghodsi et al., "Dominant
//! Resource Fairness: Fair Allocation of Multiple Resource Types", NSDI 2011). A pool's share is that of the resource
//! of which it has the larger part, divided by its weight. The pool with the smallest share is given the next VM, until
//! it has what it wants or the host is full. So nobody can get more by wanting more than it needs, and what one pool
//! does not want is for the others. Each pool's minimum comes first.

mod reclaim;

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// The whole of a resource, in the unit of shares.
const WHOLE: u128 = 1 << 64;

/// Each time that everybody's share is raised, what is left becomes a fraction; then single VMs are handed out.
const RAISES: usize = 16;

/// What there is to divide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Bytes.
    pub memory: u128,
    /// VMs.
    pub vms: u64,
}

/// What a pool is, has and wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Claim {
    /// Its share in proportion to others; none counts as one.
    pub weight: u32,
    /// Per VM, bytes.
    pub memory: u64,
    /// VMs that it is given in any case.
    pub min: u32,
    /// VMs that it has a use for.
    pub want: u32,
    /// Processes that it has.
    pub taken: u32,
    /// Those of them that will be of no use any more.
    pub leaving: u32,
    /// Those of them that have no request and could be stopped at once.
    pub idle: u32,
}

impl Claim {
    /// VMs that are or will be of use.
    pub(super) fn live(&self) -> u32 {
        self.taken.saturating_sub(self.leaving)
    }

    /// Memory of so many VMs, bytes.
    pub(super) fn memory_of(&self, vms: u32) -> u128 {
        u128::from(self.memory) * u128::from(vms)
    }
}

/// What a pool is to have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allotment {
    /// VMs that it may have.
    pub vms: u32,
    /// VMs above that that others wait for.
    pub reclaim: u32,
}

/// Divides `host` between `claims`, in their order. The minimums fit, or pools that come first get theirs.
pub fn allot(host: Room, claims: &[Claim]) -> Vec<Allotment> {
    let mut division = Division::of_minimums(host, claims);
    for _ in 0..RAISES {
        if !division.raise() {
            break;
        }
    }
    division.give_one_by_one();
    let mut allotments: Vec<_> = division.given.iter().map(|&vms| Allotment { vms, reclaim: 0 }).collect();
    reclaim::reclaim(host, claims, &mut allotments);
    allotments
}

struct Division<'a> {
    host: Room,
    claims: &'a [Claim],
    free: Room,
    /// The share, in parts of [`WHOLE`] per weight, up to which everybody has been given.
    level: u128,
    given: Vec<u32>,
}

impl<'a> Division<'a> {
    fn of_minimums(host: Room, claims: &'a [Claim]) -> Self {
        let mut division = Self { host, claims, free: host, level: 0, given: vec![0; claims.len()] };
        for (index, claim) in claims.iter().enumerate() {
            division.give(index, claim.min.min(division.fits(claim)));
        }
        division
    }

    /// Raises everybody's share as far as it surely fits; whether anybody got anything.
    fn raise(&mut self) -> bool {
        let hungry = || self.claims.iter().zip(&self.given).filter(|(claim, given)| **given < claim.want);
        let weights: u128 = hungry().map(|(claim, _)| weight(claim)).sum();
        if weights == 0 {
            return false;
        }
        // Nobody uses more of a resource than of its dominant one.
        let of_memory = part(self.free.memory, self.host.memory);
        let left = of_memory.min(part(self.free.vms.into(), self.host.vms.into()));
        // What everybody has of a VM that is not whole yet.
        let owed = |(index, claim): (usize, &Claim)| {
            let has = u128::from(self.given[index]) * self.cost(claim);
            if self.given[index] < claim.want { (self.level * weight(claim)).saturating_sub(has) } else { 0 }
        };
        let owed: u128 = self.claims.iter().enumerate().map(owed).sum();
        self.level += left.saturating_sub(owed) / weights;
        let mut any = false;
        for (index, claim) in self.claims.iter().enumerate() {
            let at_level = self.level * weight(claim) / self.cost(claim);
            let vms = u32::try_from(at_level).unwrap_or(u32::MAX).min(claim.want);
            let more = vms.saturating_sub(self.given[index]).min(self.fits(claim));
            self.give(index, more);
            any |= more > 0;
        }
        any
    }

    /// What is left, to whoever would have the smallest share with one VM more. Who has that VM already goes first
    /// among equals, else it would be stopped for another that is no better.
    fn give_one_by_one(&mut self) {
        let key = |given: u32, index: usize, division: &Self| {
            let claim = &division.claims[index];
            let share = (u128::from(given) + 1) * division.cost(claim) / weight(claim);
            Reverse((share, claim.live() <= given, index))
        };
        let hungry = |division: &Self, index: usize| {
            let claim = &division.claims[index];
            division.given[index] < claim.want && division.fits(claim) > 0
        };
        let indices = (0..self.claims.len()).filter(|index| hungry(self, *index));
        let mut heap: BinaryHeap<_> = indices.map(|index| key(self.given[index], index, self)).collect();
        while let Some(Reverse((.., index))) = heap.pop() {
            if hungry(self, index) {
                self.give(index, 1);
                heap.push(key(self.given[index], index, self));
            }
        }
    }

    fn give(&mut self, index: usize, vms: u32) {
        self.given[index] += vms;
        self.free.vms -= u64::from(vms);
        self.free.memory -= self.claims[index].memory_of(vms);
    }

    /// VMs of this kind for which there is room.
    fn fits(&self, claim: &Claim) -> u32 {
        let by_memory = self.free.memory / u128::from(claim.memory.max(1));
        let vms = by_memory.min(self.free.vms.into());
        u32::try_from(vms).unwrap_or(u32::MAX)
    }

    fn cost(&self, claim: &Claim) -> u128 {
        cost(self.host, claim)
    }
}

/// Of `host`'s dominant resource, per VM; at least something.
fn cost(host: Room, claim: &Claim) -> u128 {
    let of_memory = part(claim.memory.into(), host.memory);
    of_memory.max(part(1, host.vms.into())).max(1)
}

/// `amount` of `all` in parts of [`WHOLE`].
fn part(amount: u128, all: u128) -> u128 {
    amount.min(u128::from(u64::MAX)) * WHOLE / all.max(1)
}

fn weight(claim: &Claim) -> u128 {
    claim.weight.max(1).into()
}

#[cfg(test)]
mod tests;
