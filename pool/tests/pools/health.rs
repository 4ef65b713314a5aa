//! VMs that are asked whether they work.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::future::join_all;
use tokio::time::{Instant, sleep, timeout};
use weir_config::model::{Isolation, Pool};
use weir_pool::fake::{Ailment, Boot, Script};
use weir_vmm::{ExitReason, VmId};

use crate::support::{World, ms, ready, settle};

const INTERVAL: Duration = Duration::from_secs(5);

fn checks(result: &str) -> String {
    format!(r#"weir_health_checks_total{{pool="p",result="{result}"}}"#)
}

fn ejections(reason: &str) -> String {
    format!(r#"weir_vm_ejections_total{{pool="p",reason="{reason}"}}"#)
}

/// With two VMs that are always there.
async fn two(change: impl FnOnce(&mut Pool)) -> (World, [VmId; 2]) {
    let world = World::one(ready(), |pool| {
        pool.scale.min = 2;
        change(pool);
    });
    world.until(|now| now.ready == 2).await;
    let alive = world.launcher.alive("p");
    (world, [alive[0], alive[1]])
}

#[tokio::test(start_paused = true)]
async fn every_vm_in_use_is_asked_every_interval_and_not_in_step() {
    let world = World::one(ready(), |pool| {
        (pool.scale.min, pool.soft_limit, pool.hard_limit) = (4, 1, 1);
    });
    world.until(|now| now.ready == 4).await;
    let _leases = join_all(world.requests(4)).await;
    let begin = Instant::now();
    sleep(INTERVAL * 20).await;
    for id in world.launcher.alive("p") {
        let times: Vec<_> =
            world.launcher.checked().iter().filter(|(vm, _)| *vm == id).map(|(_, at)| *at).collect();
        assert!((17..=23).contains(&times.len()), "{}", times.len());
        assert!(times[0] - begin <= INTERVAL + ms(250));
        let gaps = times.windows(2).map(|pair| pair[1] - pair[0]);
        assert!(gaps.clone().all(|gap| gap >= INTERVAL * 9 / 10 && gap <= INTERVAL * 11 / 10 + ms(250)));
    }
    let times: BTreeSet<_> = world.launcher.checked().iter().map(|(_, at)| (*at - begin).as_secs()).collect();
    // In step it would be twenty. Where they begin is chance.
    assert!(times.len() > 24, "spread over the interval: {times:?}");
    assert_eq!(world.metric(&checks("ok")), world.launcher.checked().len() as f64);
}

#[tokio::test(start_paused = true)]
async fn a_vm_that_nobody_uses_is_asked_rarely_until_somebody_does() {
    let world = World::one(ready(), |pool| pool.scale.min = 1);
    world.until(|now| now.ready == 1).await;
    sleep(INTERVAL * 100).await;
    let asked = world.launcher.checked().len();
    assert!((8..=14).contains(&asked), "{asked}");
    let _lease = world.lease().await;
    sleep(INTERVAL * 10).await;
    let asked = world.launcher.checked().len() - asked;
    assert!((8..=11).contains(&asked), "{asked}");
}

#[tokio::test(start_paused = true)]
async fn checks_neither_keep_a_vm_nor_wake_a_pool() {
    let world = World::one(ready(), |_| {});
    drop(world.lease().await);
    let end = Instant::now();
    world.until(|now| now.total() == 0).await;
    assert_eq!(Instant::now() - end, Duration::from_secs(30), "idle_timeout, to the millisecond");
    let asked = world.launcher.checked().len();
    assert!(asked >= 2);
    sleep(INTERVAL * 100).await;
    assert_eq!((world.launcher.checked().len(), world.launcher.started().len()), (asked, 1));
}

#[tokio::test(start_paused = true)]
async fn a_vm_that_answers_wrongly_is_replaced_after_so_many_checks() {
    let (world, [bad, good]) = two(|pool| pool.health.unhealthy_after = 3).await;
    world.launcher.set_ailment(bad, Some(Ailment::Status(500)));
    let begin = Instant::now();
    while world.launcher.alive("p").contains(&bad) {
        sleep(ms(100)).await;
    }
    let took = Instant::now() - begin;
    assert!(took >= INTERVAL * 2 - INTERVAL / 5 && took <= INTERVAL * 3 + INTERVAL, "{took:?}");
    assert_eq!((world.metric(&checks("failed")), world.metric(&ejections("unhealthy"))), (3.0, 1.0));
    world.until(|now| now.ready == 2).await;
    assert!(world.launcher.alive("p").contains(&good));
    sleep(INTERVAL * 10).await;
    assert_eq!(world.launcher.started().len(), 3, "one was replaced");
}

#[tokio::test(start_paused = true)]
async fn a_bad_answer_now_and_then_is_none() {
    let (world, [bad, _]) = two(|_| {}).await;
    for _ in 0..10 {
        world.launcher.set_ailment(bad, Some(Ailment::Status(500)));
        sleep(INTERVAL * 3 / 2).await;
        world.launcher.set_ailment(bad, None);
        sleep(INTERVAL * 3 / 2).await;
    }
    assert_eq!(world.launcher.started().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn requests_of_an_unwell_vm_end_in_peace() {
    let world = World::one(ready(), |_| {});
    let lease = world.lease().await;
    world.launcher.set_ailment(lease.vm(), Some(Ailment::Status(500)));
    sleep(INTERVAL * 60).await;
    assert!(world.launcher.alive("p").contains(&lease.vm()));
    let next = world.lease().await;
    assert_ne!(next.vm(), lease.vm());
    let vm = lease.vm();
    drop(lease);
    settle().await;
    assert!(!world.launcher.alive("p").contains(&vm));
}

#[tokio::test(start_paused = true)]
async fn if_all_are_unwell_they_go_one_by_one() {
    let world = World::one(ready(), |pool| {
        pool.scale.min = 4;
        pool.health.unhealthy_after = 1;
    });
    world.until(|now| now.ready == 4).await;
    let first = world.launcher.alive("p");
    first.iter().for_each(|id| world.launcher.set_ailment(*id, Some(Ailment::Status(503))));
    let mut lowest = 4;
    while first.iter().any(|id| world.launcher.alive("p").contains(id)) {
        sleep(ms(1)).await;
        lowest = lowest.min(world.pool().instances().borrow().ready);
        for id in world.launcher.alive("p") {
            world.launcher.set_ailment(id, Some(Ailment::Status(503)));
        }
    }
    assert!(lowest >= 3, "{lowest}");
}

#[tokio::test(start_paused = true)]
async fn requests_of_a_stopped_vm_are_set_free_long_before_its_next_check() {
    let world = World::one(ready(), |pool| pool.health.interval = Duration::from_secs(3600));
    let leases = [world.lease().await, world.lease().await];
    world.launcher.set_ailment(leases[0].vm(), Some(Ailment::Stopped));
    leases[0].asked();
    let begin = Instant::now();
    join_all(leases.iter().map(|lease| lease.gone())).await;
    // Half the timeout until it is noticed, and two checks.
    let took = Instant::now() - begin;
    assert!(took >= ms(2500) && took <= ms(3500), "{took:?}");
    assert_ne!(world.lease().await.vm(), leases[0].vm());
    assert!(!world.launcher.alive("p").contains(&leases[0].vm()), "it is not asked to stop first");
    assert_eq!((world.metric(&checks("lost")), world.metric(&ejections("lost"))), (2.0, 1.0));
}

#[tokio::test(start_paused = true)]
async fn a_stopped_vm_without_requests_is_found_by_its_check() {
    let (world, [stopped, _]) = two(|_| {}).await;
    world.launcher.set_ailment(stopped, Some(Ailment::Stopped));
    sleep(INTERVAL + ms(2600)).await;
    assert!(!world.launcher.alive("p").contains(&stopped));
    world.until(|now| now.ready == 2).await;
}

#[tokio::test(start_paused = true)]
async fn a_vm_that_was_stopped_for_a_moment_goes_on() {
    let world = World::one(ready(), |_| {});
    let lease = world.lease().await;
    lease.asked();
    for _ in 0..20 {
        world.launcher.set_ailment(lease.vm(), Some(Ailment::Stopped));
        sleep(ms(900)).await;
        world.launcher.set_ailment(lease.vm(), None);
        sleep(ms(3000)).await;
    }
    assert!(timeout(ms(1), lease.gone()).await.is_err());
    assert_eq!(world.launcher.started().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_vm_that_computes_keeps_its_requests_and_gets_no_more() {
    let world = World::one(ready(), |_| {});
    let lease = world.lease().await;
    lease.asked();
    world.launcher.set_ailment(lease.vm(), Some(Ailment::Silent));
    sleep(ms(9000)).await;
    assert_eq!(world.lease().await.vm(), lease.vm(), "slow is not dead");
    sleep(INTERVAL * 3).await;
    assert_ne!(world.lease().await.vm(), lease.vm());
    let begin = Instant::now();
    let gone = lease.gone();
    tokio::pin!(gone);
    assert!(timeout(Duration::from_secs(30), &mut gone).await.is_err());
    gone.await;
    assert!(Instant::now() - begin <= Duration::from_secs(50), "but not for ever");
}

#[tokio::test(start_paused = true)]
async fn who_answers_some_of_its_requests_is_not_asked_because_of_the_others() {
    let world = World::one(ready(), |pool| pool.health.interval = Duration::from_secs(3600));
    let slow = world.lease().await;
    slow.asked();
    for _ in 0..100 {
        let quick = world.lease().await;
        quick.asked();
        sleep(ms(200)).await;
        quick.answered();
    }
    assert_eq!(world.launcher.checked(), []);
    slow.answered();
    sleep(INTERVAL * 10).await;
    assert_eq!(world.launcher.checked(), [], "a long answer is none that is waited for");
}

#[tokio::test(start_paused = true)]
async fn requests_in_a_row_without_an_answer_end_a_vm_s_service() {
    let world = World::one(ready(), |pool| pool.health.unhealthy_after = 3);
    let lease = world.lease().await;
    sleep(ms(1500)).await;
    lease.unanswered();
    lease.unanswered();
    lease.answered();
    lease.unanswered();
    lease.unanswered();
    assert_eq!(world.lease().await.vm(), lease.vm());
    lease.unanswered();
    assert_ne!(world.lease().await.vm(), lease.vm());
    assert_eq!(world.metric(&ejections("unanswered")), 1.0);
}

#[tokio::test(start_paused = true)]
async fn of_an_isolated_vm_only_the_process_is_asked() {
    for isolation in [Isolation::Request, Isolation::Connection] {
        let world = World::one(ready(), |pool| {
            (pool.isolation, pool.soft_limit, pool.hard_limit) = (isolation, 1, 1);
            pool.scale.min = 2;
        });
        world.until(|now| now.ready == 2).await;
        let lease = world.lease().await;
        lease.asked();
        sleep(INTERVAL * 10).await;
        assert_eq!(world.launcher.checked(), []);
        assert!(world.metric(&checks("ok")) >= 20.0);
        assert_eq!(world.metric(r#"weir_vm_resets_total{pool="p"}"#), 0.0);
        world.launcher.set_ailment(lease.vm(), Some(Ailment::Stopped));
        let begin = Instant::now();
        lease.gone().await;
        assert!(Instant::now() - begin <= ms(3500));
    }
}

#[tokio::test(start_paused = true)]
async fn few_are_asked_at_once() {
    let world = World::one(ready(), |pool| {
        (pool.scale.min, pool.scale.max) = (200, 200);
        pool.health.interval = ms(100);
        (pool.health.timeout, pool.health.unhealthy_after) = (ms(50), 100);
    });
    world.until(|now| now.ready == 200).await;
    for id in world.launcher.alive("p") {
        world.launcher.set_ailment(id, Some(Ailment::Silent));
    }
    let first = world.launcher.checked().len();
    let mut checked = world.launcher.checked();
    for _ in 0..50 {
        sleep(ms(49)).await;
        let before = checked.len();
        checked = world.launcher.checked();
        assert!(checked.len() - before <= 32, "a check takes 50 ms: {}", checked.len() - before);
    }
    assert!(checked.len() > first + 200);
}

#[tokio::test(start_paused = true)]
async fn vms_that_take_long_to_check_take_nobodys_turn() {
    const VMS: u32 = 80;
    let world = World::one(ready(), |pool| {
        (pool.scale.min, pool.scale.max) = (VMS, VMS);
        (pool.health.interval, pool.health.unhealthy_after) = (Duration::from_secs(1), 1000);
    });
    world.until(|now| now.ready == VMS).await;
    for id in world.launcher.alive("p") {
        world.launcher.set_ailment(id, Some(Ailment::Silent));
    }
    sleep(INTERVAL * 4).await;
    let checked: BTreeSet<_> = world.launcher.checked().into_iter().map(|(id, _)| id).collect();
    assert_eq!(checked.len(), VMS as usize);
}

#[tokio::test(start_paused = true)]
async fn a_vm_that_goes_before_its_turn_is_not_asked() {
    const VMS: u32 = 64;
    let world = World::one(ready(), |pool| {
        (pool.scale.min, pool.scale.max) = (VMS, VMS);
        // All are due within one tick, and sixteen of them have their turn for a second.
        (pool.health.interval, pool.health.timeout) = (ms(250), Duration::from_secs(1));
        pool.health.unhealthy_after = 1000;
    });
    world.until(|now| now.ready == VMS).await;
    let first = world.launcher.alive("p");
    first.iter().for_each(|id| world.launcher.set_ailment(*id, Some(Ailment::Silent)));
    sleep(ms(900)).await;
    let asked: BTreeSet<_> = world.launcher.checked().into_iter().map(|(id, _)| id).collect();
    assert_eq!(asked.len(), 16);
    world.launcher.script_usual(Script::boot(Boot::Silent));
    let waiting: Vec<_> = first.iter().filter(|id| !asked.contains(id)).collect();
    waiting.iter().for_each(|id| world.launcher.crash(**id, ExitReason::Exited(0)));
    sleep(INTERVAL).await;
    let asked: BTreeSet<_> = world.launcher.checked().into_iter().map(|(id, _)| id).collect();
    assert!(waiting.iter().all(|id| !asked.contains(id)));
}
