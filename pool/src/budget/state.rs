//! Who has what of the host, and who is to have how much.

use super::allot::{Allotment, Claim, Room, allot};
use super::turns::Turns;
use super::{Answer, Ask};

/// All pools' claims, by their numbers.
#[derive(Debug)]
pub(super) struct State {
    host: Room,
    claims: Vec<Claim>,
    /// What the processes take that there are.
    taken: Room,
    /// The same, where it is less than a pool's minimum that instead.
    bound: Room,
    /// The same, where it is less than what a pool wants that instead.
    wanted: Room,
    /// What everybody is to have; `None` as long as all can have what they want.
    allotments: Option<Vec<Allotment>>,
    /// Got less than it asked for.
    starved: Vec<bool>,
    pub(super) turns: Turns,
}

impl State {
    pub(super) fn new(host: Room, max_starts: u32, claims: Vec<Claim>) -> Self {
        let nothing = Room { memory: 0, vms: 0 };
        let mut state = Self {
            host,
            taken: nothing,
            bound: nothing,
            wanted: nothing,
            allotments: None,
            starved: vec![false; claims.len()],
            turns: Turns::new(max_starts, claims.iter().map(|claim| claim.weight)),
            claims: Vec::new(),
        };
        for claim in claims {
            state.count(&claim);
            state.claims.push(claim);
        }
        state
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

    /// Takes room for one VM, if there is any.
    pub(super) fn reserve(&mut self, pool: usize) -> bool {
        let claim = self.claims[pool];
        let below_min = claim.taken < claim.min;
        // What is set aside for a minimum may be lent while no schedule holds, so even that can be missing.
        let used = if below_min { self.taken } else { self.bound };
        let fits = used.memory + u128::from(claim.memory) <= self.host.memory && used.vms < self.host.vms;
        let due = self.allotments.as_ref().is_none_or(|allotments| claim.live() < allotments[pool].vms);
        let reserved = fits && (below_min || due);
        if reserved {
            self.replace(pool, Claim { taken: claim.taken + 1, ..claim });
        }
        self.starved[pool] |= !reserved;
        reserved
    }

    /// A VM's process is gone. For whom there may be room now.
    pub(super) fn give_back(&mut self, pool: usize) -> Vec<usize> {
        let claim = self.claims[pool];
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
        let fits = self.wanted.memory <= self.host.memory && self.wanted.vms <= self.host.vms;
        let after = (!fits).then(|| allot(self.host, &self.claims));
        let before = std::mem::replace(&mut self.allotments, after);
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
        for (total, [before, after]) in [
            (&mut self.taken, [before.taken, claim.taken]),
            (&mut self.bound, [bound(&before), bound(&claim)]),
            (&mut self.wanted, [wanted(&before), wanted(&claim)]),
        ] {
            total.memory = total.memory - claim.memory_of(before) + claim.memory_of(after);
            total.vms = total.vms - u64::from(before) + u64::from(after);
        }
    }

    fn count(&mut self, claim: &Claim) {
        for (total, vms) in [
            (&mut self.taken, claim.taken),
            (&mut self.bound, bound(claim)),
            (&mut self.wanted, wanted(claim)),
        ] {
            total.memory += claim.memory_of(vms);
            total.vms += u64::from(vms);
        }
    }
}

fn bound(claim: &Claim) -> u32 {
    claim.taken.max(claim.min)
}

fn wanted(claim: &Claim) -> u32 {
    bound(claim).max(claim.want.saturating_add(claim.leaving))
}
