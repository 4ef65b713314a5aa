//! Who has what of the host, and who is to have how much.

use std::collections::BTreeSet;

use super::allot::{Allotment, Claim, Room, allot};
use super::turns::Turns;
use super::{Answer, Ask};

/// All pools' claims, by their numbers.
#[derive(Debug)]
pub(super) struct State {
    host: Room,
    claims: Vec<Claim>,
    /// What the processes take that there are. They may be of a size that their pool's have no more.
    taken: Room,
    /// What pools have less than their minimums.
    set_aside: Room,
    /// What pools have less than they want, or their minimums.
    wished: Room,
    /// Numbers that are no pool's any more, as soon as it has nothing taken.
    left: BTreeSet<usize>,
    /// What everybody is to have; `None` as long as all can have what they want.
    allotments: Option<Vec<Allotment>>,
    /// Got less than it asked for.
    starved: Vec<bool>,
    pub(super) turns: Turns,
}

impl State {
    pub(super) fn new(host: Room, max_starts: u32) -> Self {
        let nothing = Room { memory: 0, vms: 0 };
        Self {
            host,
            taken: nothing,
            set_aside: nothing,
            wished: nothing,
            left: BTreeSet::new(),
            allotments: None,
            starved: Vec::new(),
            turns: Turns::new(max_starts),
            claims: Vec::new(),
        }
    }

    /// A pool that claims this: its number, and for whom there might be another answer now.
    pub(super) fn add(&mut self, claim: Claim) -> (usize, Vec<usize>) {
        let free = self.left.iter().copied().find(|number| self.claims[*number].taken == 0);
        let number = free.unwrap_or(self.claims.len());
        if !self.left.remove(&number) {
            self.claims.push(Claim::default());
            self.starved.push(false);
            if let Some(allotments) = &mut self.allotments {
                allotments.push(Allotment::default());
            }
        }
        self.starved[number] = false;
        self.turns.add(number, claim.weight);
        (number, self.change(number, claim))
    }

    /// The pool with this number is gone, and wants nothing any more.
    pub(super) fn leave(&mut self, pool: usize) {
        self.left.insert(pool);
    }

    /// For whom there might be another answer now.
    pub(super) fn configure(&mut self, pool: usize, weight: u32, memory: u64) -> Vec<usize> {
        self.turns.set_weight(pool, weight);
        self.change(pool, Claim { weight, memory, ..self.claims[pool] })
    }

    /// Everybody, for whom there might be another answer now.
    pub(super) fn resize(&mut self, host: Room, max_starts: u32) -> Vec<usize> {
        self.host = host;
        self.turns.set_max(max_starts);
        self.divide();
        // Everybody is told anyway.
        self.next_turns();
        (0..self.claims.len()).collect()
    }

    /// The answer, and for whom there might be another one now.
    pub(super) fn ask(&mut self, pool: usize, ask: Ask) -> (Answer, Vec<usize>) {
        let before = self.claims[pool];
        let Ask { min, want, leaving, idle } = ask;
        let claim = Claim { min, want, leaving: leaving.min(before.taken), idle, ..before };
        let concerned = if claim == before { Vec::new() } else { self.change(pool, claim) };
        let live = claim.live();
        let allotment = self.allotments.as_ref().map(|allotments| allotments[pool]);
        let (vms, reclaim) = allotment.map_or((u32::MAX, 0), |allotment| (allotment.vms, allotment.reclaim));
        let room = vms.saturating_sub(live);
        self.starved[pool] = want > live && vms < want;
        (Answer { room, reclaim }, concerned.into_iter().filter(|other| *other != pool).collect())
    }

    /// Takes room for one VM, if there is any; how many bytes.
    pub(super) fn reserve(&mut self, pool: usize) -> Option<u64> {
        let claim = self.claims[pool];
        let below_min = claim.taken < claim.min;
        // What is set aside for a minimum may be lent while no schedule holds, so even that can be missing.
        let set_aside = if below_min { Room { memory: 0, vms: 0 } } else { self.set_aside };
        let used = plus(self.taken, set_aside);
        let fits = used.memory + u128::from(claim.memory) <= self.host.memory && used.vms < self.host.vms;
        let due = self.allotments.as_ref().is_none_or(|allotments| claim.live() < allotments[pool].vms);
        let reserved = fits && (below_min || due);
        if reserved {
            self.taken = plus(self.taken, Room { memory: claim.memory.into(), vms: 1 });
            self.replace(pool, Claim { taken: claim.taken + 1, ..claim });
        }
        self.starved[pool] |= !reserved;
        reserved.then_some(claim.memory)
    }

    /// A VM's process is gone, for which so many bytes were taken. For whom there may be room now.
    pub(super) fn give_back(&mut self, pool: usize, memory: u64) -> Vec<usize> {
        let claim = self.claims[pool];
        self.taken = minus(self.taken, Room { memory: memory.into(), vms: 1 });
        let (taken, leaving) = (claim.taken - 1, claim.leaving.saturating_sub(1));
        self.change(pool, Claim { taken, leaving, idle: claim.idle.min(taken), ..claim });
        self.starving().collect()
    }

    /// Hands out the turns there are. Who has one now.
    pub(super) fn next_turns(&mut self) -> Vec<usize> {
        std::iter::from_fn(|| self.turns.grant_next()).collect()
    }

    /// Divides anew. Who is to give back more than before, or starves and may have more.
    fn change(&mut self, pool: usize, claim: Claim) -> Vec<usize> {
        self.replace(pool, claim);
        let before = self.divide();
        let Some(after) = &self.allotments else {
            return if before.is_some() { self.starving().collect() } else { Vec::new() };
        };
        let before = |pool: usize| match &before {
            Some(allotments) => allotments[pool],
            None => Allotment { vms: u32::MAX, reclaim: 0 },
        };
        let gets_more = |pool: usize| self.starved[pool] && after[pool].vms > before(pool).vms;
        let gives_more = |pool: usize| after[pool].reclaim > before(pool).reclaim;
        (0..after.len()).filter(|pool| gets_more(*pool) || gives_more(*pool)).collect()
    }

    /// Divides what there is; how it was divided before.
    fn divide(&mut self) -> Option<Vec<Allotment>> {
        let wanted = plus(self.taken, self.wished);
        let fits = wanted.memory <= self.host.memory && wanted.vms <= self.host.vms;
        let after = (!fits).then(|| allot(self.host, &self.claims));
        std::mem::replace(&mut self.allotments, after)
    }

    /// Those that got less than they asked for, and are due more.
    fn starving(&self) -> impl Iterator<Item = usize> {
        let due = |pool: &usize| {
            let claim = &self.claims[*pool];
            let due = self.allotments.as_ref().is_none_or(|allotments| claim.live() < allotments[*pool].vms);
            due || claim.taken < claim.min
        };
        (0..self.claims.len()).filter(|pool| self.starved[*pool]).filter(due)
    }

    fn replace(&mut self, pool: usize, claim: Claim) {
        let before = std::mem::replace(&mut self.claims[pool], claim);
        self.set_aside = plus(minus(self.set_aside, set_aside(&before)), set_aside(&claim));
        self.wished = plus(minus(self.wished, wished(&before)), wished(&claim));
    }
}

fn set_aside(claim: &Claim) -> Room {
    beyond_taken(claim, bound(claim))
}

fn wished(claim: &Claim) -> Room {
    beyond_taken(claim, bound(claim).max(claim.want.saturating_add(claim.leaving)))
}

/// What `claim` is short of for so many VMs, which are not fewer than it has.
fn beyond_taken(claim: &Claim, vms: u32) -> Room {
    let short = vms - claim.taken;
    Room { memory: claim.memory_of(short), vms: short.into() }
}

fn bound(claim: &Claim) -> u32 {
    claim.taken.max(claim.min)
}

fn plus(a: Room, b: Room) -> Room {
    Room { memory: a.memory + b.memory, vms: a.vms + b.vms }
}

fn minus(a: Room, b: Room) -> Room {
    Room { memory: a.memory - b.memory, vms: a.vms - b.vms }
}
