use futures::FutureExt;
use proptest::prelude::*;

use super::*;
use crate::fake;

fn budget(memory: u64, max_vms: u32, pools: &[(u64, u32)]) -> Result<Vec<Share>, MinExceedsHost> {
    let pools = pools.iter().enumerate().map(|(index, &(memory, min))| {
        let mut pool = fake::pool(&format!("p{index}"));
        (pool.memory, pool.scale.min) = (memory, min);
        pool
    });
    let mut config = fake::config(pools);
    (config.host.memory, config.host.max_vms, config.host.max_starts) = (memory, max_vms, 2);
    let host = HostBudget::new(&config)?;
    Ok(config.pools.values().map(|pool| host.share(pool)).collect())
}

fn wants(want: u32, idle: u32) -> Ask {
    Ask { min: 0, want, leaving: 0, idle }
}

fn is_told(share: &Share) -> bool {
    share.changed().now_or_never().is_some()
}

#[test]
fn min_is_set_aside_and_the_rest_is_shared() {
    let shares = budget(100, 10, &[(10, 2), (30, 1)]).unwrap();
    let mut taken: Vec<_> = (0..7).map(|_| shares[0].reserve().unwrap()).collect();
    assert!(shares[0].reserve().is_none(), "70 of 100 bytes taken, 30 set aside for the other");
    let guaranteed = shares[1].reserve().unwrap();
    assert!(shares[1].reserve().is_none());
    taken.truncate(4);
    assert!(shares[1].reserve().is_some(), "30 bytes were given back");
    drop(guaranteed);
    assert!(shares[1].reserve().is_some());
}

#[test]
fn vm_count_limits_too() {
    let shares = budget(1000, 3, &[(1, 0), (1, 1)]).unwrap();
    let _taken = [shares[0].reserve().unwrap(), shares[0].reserve().unwrap()];
    assert!(shares[0].reserve().is_none());
    assert!(shares[1].reserve().is_some());
}

#[test]
fn giving_back_wakes_who_waits_and_nobody_else() {
    let shares = budget(10, 1, &[(10, 0), (10, 0), (10, 0)]).unwrap();
    let taken = shares[0].reserve().unwrap();
    assert!(shares[1].reserve().is_none());
    assert!(!is_told(&shares[1]));
    drop(taken);
    assert_eq!([0, 1, 2].map(|pool| is_told(&shares[pool])), [false, true, false]);
}

#[test]
fn idle_vms_are_asked_back_when_another_pool_wants_some() {
    let shares = budget(1000, 4, &[(1, 0), (1, 0)]).unwrap();
    assert_eq!(shares[0].ask(wants(4, 0)), Answer { room: u32::MAX, reclaim: 0 });
    let mut taken: Vec<_> = (0..4).map(|_| shares[0].reserve().unwrap()).collect();
    assert_eq!(shares[0].ask(wants(1, 3)).reclaim, 0, "nobody else wants any");
    assert_eq!(shares[1].ask(wants(1, 0)).room, 1);
    assert!(shares[1].reserve().is_none() && is_told(&shares[0]) && !is_told(&shares[1]));
    assert_eq!(shares[0].ask(wants(1, 3)), Answer { room: 0, reclaim: 1 });
    assert_eq!(shares[0].ask(Ask { leaving: 1, ..wants(1, 2) }).reclaim, 0, "it is on its way");
    taken.pop();
    assert!(is_told(&shares[1]) && shares[1].reserve().is_some());
}

#[test]
fn who_has_more_than_its_share_gets_no_more_while_another_starves() {
    let shares = budget(1000, 4, &[(1, 0), (1, 0)]).unwrap();
    shares[0].ask(wants(9, 0));
    let mut taken: Vec<_> = (0..4).map(|_| shares[0].reserve().unwrap()).collect();
    assert_eq!(shares[1].ask(wants(9, 0)).room, 2);
    assert_eq!(shares[0].ask(wants(9, 0)), Answer { room: 0, reclaim: 2 }, "when they are free");
    taken.pop();
    assert!(shares[0].reserve().is_none(), "it is the other's");
    let given = shares[1].reserve();
    assert!(given.is_some());
    drop(given);
    assert_eq!(shares[1].ask(wants(0, 0)).room, 0);
    assert!(is_told(&shares[0]) && shares[0].reserve().is_some());
}

#[test]
fn a_minimum_that_comes_with_a_schedule_is_lent_until_then() {
    let shares = budget(1000, 3, &[(1, 1), (1, 0)]).unwrap();
    shares[1].ask(wants(3, 0));
    let mut lent: Vec<_> = (0..2).map(|_| shares[1].reserve().unwrap()).collect();
    assert!(shares[1].reserve().is_none());
    let _own = shares[0].reserve().unwrap();
    let ask = Ask { min: 2, want: 2, leaving: 0, idle: 1 };
    assert_eq!(shares[0].ask(ask).room, 1);
    assert!(shares[0].reserve().is_none(), "it is lent");
    assert_eq!(shares[1].ask(wants(3, 0)), Answer { room: 0, reclaim: 1 });
    lent.pop();
    assert!(shares[1].reserve().is_none() && shares[0].reserve().is_some());
}

#[test]
fn who_has_gone_is_in_nobody_s_way() {
    let mut shares = budget(1000, 4, &[(1, 0), (1, 0)]).unwrap();
    let gone = shares.remove(0);
    gone.ask(wants(9, 0));
    let turns = gone.turns(9);
    let mut taken: Vec<_> = turns.iter().map(|_| gone.reserve().unwrap()).collect();
    assert_eq!((turns.len(), gone.starts_waiting()), (2, 7));
    assert_eq!((shares[0].ask(wants(9, 0)).room, shares[0].turns(1).len()), (2, 0));
    drop(gone);
    drop(turns);
    assert!(is_told(&shares[0]));
    assert_eq!((shares[0].ask(wants(9, 0)).room, shares[0].turns(9).len()), (4, 2));
    taken.clear();
    let _all: Vec<_> = (0..4).map(|_| shares[0].reserve().unwrap()).collect();
}

proptest! {
    #[test]
    fn no_more_than_the_host_has_and_no_less_than_min(
        pools in proptest::collection::vec((1..40u64, 0..3u32), 1..4),
        (memory, max_vms) in (0..300u64, 0..12u32),
        steps in proptest::collection::vec((0..4usize, any::<bool>(), 0..16usize), 0..80),
    ) {
        let Ok(shares) = budget(memory, max_vms, &pools) else { return Ok(()) };
        let mut taken: Vec<Vec<Reservation>> = pools.iter().map(|_| Vec::new()).collect();
        for (pool, take, nth) in steps {
            let pool = pool % pools.len();
            // What a pool has beyond its min, or has to keep free for it.
            let bound = |n: usize| taken[n].len().max(pools[n].1 as usize) as u64;
            let used = (0..pools.len()).map(|n| bound(n) * pools[n].0).sum::<u64>();
            let vms = (0..pools.len()).map(bound).sum::<u64>();
            prop_assert!(used <= memory && vms <= u64::from(max_vms));
            if take {
                let below_min = taken[pool].len() < pools[pool].1 as usize;
                let fits = used + pools[pool].0 <= memory && vms < u64::from(max_vms);
                let reservation = shares[pool].reserve();
                prop_assert_eq!(reservation.is_some(), below_min || fits);
                taken[pool].extend(reservation);
            } else if nth < taken[pool].len() {
                taken[pool].swap_remove(nth);
            }
        }
    }

    #[test]
    fn owners_that_do_as_they_are_told_come_to_what_each_is_due(
        wants in proptest::collection::vec((0..12u32, 0..3u32), 2..5),
        had in 0..5usize,
        max_vms in 8..16u32,
    ) {
        let pools: Vec<_> = wants.iter().map(|(_, min)| (1, *min)).collect();
        let Ok(shares) = budget(u64::MAX, max_vms, &pools) else { return Ok(()) };
        let mut taken: Vec<Vec<Reservation>> = pools.iter().map(|_| Vec::new()).collect();
        // One of them has taken all there is, and has no request at all.
        taken[had % pools.len()].extend(std::iter::from_fn(|| shares[had % pools.len()].reserve()));
        let mut quiet = 0;
        let mut rounds = 0;
        while quiet < 2 {
            rounds += 1;
            prop_assert!(rounds < 50, "no end to it");
            quiet += 1;
            for (pool, share) in shares.iter().enumerate() {
                let (want, min) = (wants[pool].0.max(wants[pool].1), wants[pool].1);
                let live = u32::try_from(taken[pool].len()).unwrap();
                let answer = share.ask(Ask { min, want, leaving: 0, idle: live });
                let surplus = (live - min.min(live)).min(answer.reclaim);
                taken[pool].truncate((live - surplus) as usize);
                let more = if answer.reclaim == 0 { want.saturating_sub(live).min(answer.room) } else { 0 };
                let before = taken[pool].len();
                taken[pool].extend((0..more).map_while(|_| share.reserve()));
                if surplus > 0 || taken[pool].len() > before {
                    quiet = 0;
                }
            }
        }
        let claims: Vec<_> = wants.iter().map(|(want, min)| Claim {
            weight: 1, memory: 1, min: *min, want: *want.max(min), ..Claim::default()
        }).collect();
        let host = Room { memory: u64::MAX.into(), vms: max_vms.into() };
        let used: usize = taken.iter().map(Vec::len).sum();
        for (pool, due) in allot(host, &claims).iter().enumerate() {
            // Between equals it depends on who came first who has the odd one.
            prop_assert!(taken[pool].len() + 1 >= due.vms as usize, "{} of {due:?}", taken[pool].len());
            let hungry = taken[pool].len() < claims[pool].want as usize;
            prop_assert!(!hungry || used == max_vms as usize, "there is room");
        }
    }
}

#[test]
fn who_comes_later_takes_the_place_of_who_has_gone_but_not_of_what_that_has_taken() {
    let mut shares = budget(100, 4, &[(10, 0), (10, 0)]).unwrap();
    let host = shares[1].host.clone();
    let mut pool = fake::pool("late");
    pool.memory = 30;
    let left = shares[0].reserve().unwrap();
    drop(shares.remove(0));
    let late = host.share(&pool);
    let _taken: Vec<_> = (0..3).map(|_| late.reserve().unwrap()).collect();
    assert!(late.reserve().is_none(), "no more than 4 VMs, of which one is left behind");
    assert!(!is_told(&late));
    drop(left);
    assert!(is_told(&late), "it waits for room");
    assert!(late.reserve().is_none(), "30 more bytes than there are");
    assert!(shares[0].reserve().is_some());
    drop(late);
    assert_eq!(host.share(&pool).pool, 0, "of whoever has nothing left");
}

#[test]
fn vms_keep_their_size_when_their_pool_gets_another() {
    let shares = budget(100, 10, &[(10, 0)]).unwrap();
    let mut small: Vec<_> = (0..3).map(|_| shares[0].reserve().unwrap()).collect();
    let mut pool = fake::pool("p0");
    pool.memory = 35;
    shares[0].configure(&pool);
    let large = [shares[0].reserve().unwrap(), shares[0].reserve().unwrap()];
    assert!(shares[0].reserve().is_none(), "100 bytes are taken");
    small.clear();
    assert!(shares[0].reserve().is_none(), "70 bytes are taken");
    pool.memory = 15;
    shares[0].configure(&pool);
    let more = [shares[0].reserve().unwrap(), shares[0].reserve().unwrap()];
    assert!(shares[0].reserve().is_none(), "100 bytes are taken");
    drop((large, more));
    let all: Vec<_> = std::iter::from_fn(|| shares[0].reserve()).collect();
    assert_eq!(all.len(), 6);
}

#[test]
fn a_host_that_shrinks_wants_back_and_one_that_grows_gives() {
    let shares = budget(100, 4, &[(10, 0), (10, 0)]).unwrap();
    let ask = |share: &Share| share.ask(Ask { min: 0, want: 4, leaving: 0, idle: 4 });
    ask(&shares[0]);
    let _taken: Vec<_> = (0..4).map(|_| shares[0].reserve().unwrap()).collect();
    assert_eq!(ask(&shares[0]).reclaim, 0);
    let host = shares[0].host.clone();
    let of = |max_vms, max_starts| Host { memory: 100, max_vms, max_starts, ..Host::default() };
    host.resize(&of(2, 1));
    assert!(is_told(&shares[0]) && shares[0].reserve().is_none());
    let mut turns = shares[0].turns(3);
    assert_eq!(turns.len(), 1);
    host.resize(&of(6, 3));
    assert!(is_told(&shares[1]) && shares[1].reserve().is_some());
    turns.extend(shares[0].turns(2));
    assert_eq!((turns.len(), shares[1].turns(3).len()), (3, 0));
}

#[test]
fn min_beyond_the_host_is_an_error() {
    assert_eq!(budget(100, 10, &[(51, 1), (50, 1)]).unwrap_err().memory, 101);
    assert_eq!(budget(u64::MAX, 3, &[(1, 2), (1, 2)]).unwrap_err().vms, 4);
    assert!(budget(u64::MAX, 10, &[(u64::MAX, 2), (1, 1)]).is_err());
}
