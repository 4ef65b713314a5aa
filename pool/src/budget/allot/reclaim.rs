//! Who gives back what others may have and cannot get.

use std::cmp::Reverse;

use super::{Allotment, Claim, Room, cost, weight};

/// Marks what is to be given back, as far as it is needed: by those first that have no use for it, then by those with
/// the largest share; and VMs that are idle before others, whoever has them.
pub(super) fn reclaim(host: Room, claims: &[Claim], allotments: &mut [Allotment]) {
    let Some(mut lacking) = lacking(host, claims, allotments) else { return };
    let above: Vec<_> =
        claims.iter().zip(&*allotments).map(|(claim, due)| claim.live().saturating_sub(due.vms)).collect();
    let mut victims: Vec<_> = (0..claims.len()).filter(|index| above[*index] > 0).collect();
    victims.sort_by_cached_key(|index| {
        let claim = &claims[*index];
        let share = u128::from(claim.live()) * cost(host, claim) / weight(claim);
        (claim.want > claim.min, Reverse(share), *index)
    });
    let idle = victims.iter().map(|index| (*index, above[*index].min(claims[*index].idle)));
    let all = victims.iter().map(|index| (*index, above[*index]));
    for (index, most) in idle.chain(all) {
        let (claim, reclaim) = (&claims[index], &mut allotments[index].reclaim);
        let by_memory = lacking.memory.div_ceil(u128::from(claim.memory.max(1)));
        let enough = u32::try_from(by_memory.max(lacking.vms.into())).unwrap_or(u32::MAX);
        let more = enough.min(most.saturating_sub(*reclaim));
        *reclaim += more;
        lacking.memory = lacking.memory.saturating_sub(claim.memory_of(more));
        lacking.vms = lacking.vms.saturating_sub(more.into());
    }
}

/// What the host lacks for everybody's allotment while others keep what they have above theirs. What is leaving is as
/// good as free.
fn lacking(host: Room, claims: &[Claim], allotments: &[Allotment]) -> Option<Room> {
    let pairs = || claims.iter().zip(allotments);
    if pairs().all(|(claim, due)| claim.live() >= due.vms) {
        return None;
    }
    let due = |claim: &Claim, due: &Allotment| due.vms.max(claim.live());
    let memory: u128 = pairs().map(|(claim, allotment)| claim.memory_of(due(claim, allotment))).sum();
    let vms: u64 = pairs().map(|(claim, allotment)| u64::from(due(claim, allotment))).sum();
    let lacking = Room { memory: memory.saturating_sub(host.memory), vms: vms.saturating_sub(host.vms) };
    (lacking.memory > 0 || lacking.vms > 0).then_some(lacking)
}
