use proptest::prelude::*;

use super::*;

const GIB: u64 = 1 << 30;

fn host(memory: u64, vms: u64) -> Room {
    Room { memory: memory.into(), vms }
}

fn claim(weight: u32, memory: u64, want: u32) -> Claim {
    Claim { weight, memory, want, ..Claim::default() }
}

fn vms(host: Room, claims: &[Claim]) -> Vec<u32> {
    allot(host, claims).iter().map(|allotment| allotment.vms).collect()
}

fn reclaimed(host: Room, claims: &[Claim]) -> Vec<u32> {
    allot(host, claims).iter().map(|allotment| allotment.reclaim).collect()
}

#[test]
fn weights_divide_what_all_want_and_the_rest_of_the_modest_is_for_the_others() {
    let host = host(100 * GIB, 80);
    assert_eq!(vms(host, &[claim(1, GIB, 99), claim(3, GIB, 99)]), [20, 60]);
    assert_eq!(vms(host, &[claim(1, GIB, 99), claim(3, GIB, 10)]), [70, 10]);
    assert_eq!(vms(host, &[claim(1, GIB, 30), claim(3, GIB, 0)]), [30, 0]);
    assert_eq!(vms(host, &[Claim { min: 30, ..claim(1, GIB, 99) }, claim(3, GIB, 99)]), [30, 50]);
}

#[test]
fn the_dominant_resource_counts() {
    // As the example of the paper: 9 VMs, 18 GiB; one pool is short of VMs, the other of memory.
    assert_eq!(vms(host(18, 9), &[claim(1, 1, 99), claim(1, 4, 99)]), [6, 3]);
}

#[test]
fn idle_pools_give_back_first_and_no_more_than_is_needed() {
    let host = host(100 * GIB, 10);
    let have = |taken, idle, want| Claim { taken, idle, ..claim(1, GIB, want) };
    let starved = have(0, 0, 2);
    assert_eq!(reclaimed(host, &[have(4, 4, 0), have(6, 1, 5), starved]), [2, 0, 0]);
    assert_eq!(reclaimed(host, &[have(1, 1, 0), have(9, 1, 5), starved]), [1, 1, 0]);
    assert_eq!(
        reclaimed(host, &[have(0, 0, 0), have(10, 0, 10), starved]),
        [0, 2, 0],
        "busy ones, when they are free"
    );
    let leaving = Claim { leaving: 2, ..have(4, 2, 0) };
    assert_eq!(reclaimed(host, &[leaving, have(6, 6, 1), starved]), [0, 0, 0], "it is on its way");
    assert_eq!(
        reclaimed(host, &[have(4, 4, 0), have(5, 0, 5), have(1, 0, 1)]),
        [0, 0, 0],
        "nobody lacks any"
    );
}

fn claims(pools: std::ops::Range<usize>) -> impl Strategy<Value = Vec<Claim>> {
    let claim = (1..9u32, 1..20u64, (0..3u32, 0..40u32), (0..20u32, 0..20u32, 0..20u32)).prop_map(
        |(weight, memory, (min, want), (taken, leaving, idle))| {
            let leaving = leaving.min(taken);
            Claim { weight, memory, min, want, taken, leaving, idle: idle.min(taken - leaving) }
        },
    );
    proptest::collection::vec(claim, pools)
}

/// The algorithm as the paper has it, one VM at a time.
fn one_by_one(host: Room, claims: &[Claim]) -> Vec<u32> {
    let mut division = Division::of_minimums(host, claims);
    division.give_one_by_one();
    division.given
}

proptest! {
    #[test]
    fn allotments_fit_guarantee_minimums_leave_nothing_over_and_are_those_of_the_paper(
        claims in claims(0..7),
        (memory, max_vms) in (150..600u64, 20..120u64),
    ) {
        let host = host(memory, max_vms);
        let allotments = allot(host, &claims);
        let given: Vec<_> = allotments.iter().map(|allotment| allotment.vms).collect();
        prop_assert_eq!(&given, &one_by_one(host, &claims));
        let used: u128 = claims.iter().zip(&given).map(|(claim, vms)| claim.memory_of(*vms)).sum();
        let count: u64 = given.iter().map(|vms| u64::from(*vms)).sum();
        prop_assert!(used <= host.memory && count <= host.vms);
        let mins: u128 = claims.iter().map(|claim| claim.memory_of(claim.min)).sum();
        for (claim, vms) in claims.iter().zip(&given) {
            prop_assert!(*vms <= claim.want.max(claim.min));
            prop_assert!(mins > host.memory || *vms >= claim.min);
            let fits = used + u128::from(claim.memory) <= host.memory && count < host.vms;
            prop_assert!(*vms >= claim.want || !fits, "there is room for another");
        }
    }

    #[test]
    fn nobody_would_rather_have_another_s_allotment(claims in claims(2..6), max_vms in 20..60u64) {
        let claims: Vec<_> = claims.into_iter().map(|claim| Claim { memory: 1, ..claim }).collect();
        let given = vms(host(u64::MAX, max_vms), &claims);
        for (hungry, has) in claims.iter().zip(&given).filter(|(claim, vms)| **vms < claim.want) {
            for (other, others) in claims.iter().zip(&given).filter(|(claim, vms)| **vms > claim.min) {
                let envied = u64::from(*others) * u64::from(hungry.weight);
                let own = u64::from(has + 1) * u64::from(other.weight);
                prop_assert!(envied <= own, "{has} of {hungry:?}, {others} of {other:?}");
            }
        }
    }

    #[test]
    fn only_surplus_is_reclaimed_and_only_as_much_as_is_lacking(
        claims in claims(1..7),
        (memory, max_vms) in (150..600u64, 20..120u64),
    ) {
        let host = host(memory, max_vms);
        let allotments = allot(host, &claims);
        let pairs = || claims.iter().zip(&allotments);
        let starving = pairs().any(|(claim, allotment)| claim.live() < allotment.vms);
        let stays = |claim: &Claim, allotment: &Allotment| allotment.vms.max(claim.live() - allotment.reclaim);
        let used: u128 = pairs().map(|(claim, allotment)| claim.memory_of(stays(claim, allotment))).sum();
        let count: u64 = pairs().map(|(claim, allotment)| u64::from(stays(claim, allotment))).sum();
        prop_assert!(!starving || used <= host.memory && count <= host.vms, "somebody does not get what is due");
        for (claim, allotment) in pairs().filter(|(_, allotment)| allotment.reclaim > 0) {
            prop_assert!(starving);
            prop_assert!(claim.live() - allotment.reclaim >= allotment.vms.max(claim.min));
            let back = used + u128::from(claim.memory) <= host.memory && count < host.vms;
            prop_assert!(!back || claims.len() > 1, "more than is needed");
        }
    }

    #[test]
    fn garbage_is_divided_too(
        garbage in proptest::collection::vec(any::<(u32, u64, u32, u32, u32, u32, u32)>(), 0..5),
        (memory, max_vms) in (any::<u64>(), 0..5000u64),
    ) {
        let claims: Vec<_> = garbage.into_iter().map(|(weight, memory, min, want, taken, leaving, idle)| {
            Claim { weight, memory, min, want, taken, leaving, idle }
        }).collect();
        let allotments = allot(host(memory, max_vms), &claims);
        prop_assert_eq!(allotments.len(), claims.len());
    }
}
