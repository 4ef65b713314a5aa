//! VMs without requests that work all the same.

use std::time::Duration;

use futures::future::join_all;
use tokio::time::{Instant, advance, sleep};
use weir_config::model::{Idle, Isolation, Pool};
use weir_pool::Start;
use weir_pool::fake::{self, Report, Script};
use weir_vmm::{VmEvent, VmId};

use crate::support::{Anonymous, BOOT, World, ms, ready, settle};

const IDLE: Duration = Duration::from_secs(30);

fn reporting(report: Report) -> Script {
    Script { report, ..ready() }
}

/// How long after its only request the VM of such a pool lives.
async fn life(world: &World) -> Duration {
    drop(world.lease().await);
    let end = Instant::now();
    world.until(|now| now.total() == 0).await;
    Instant::now() - end
}

#[tokio::test(start_paused = true)]
async fn a_working_vm_is_kept_for_as_long_as_it_works_and_an_idle_timeout() {
    let works = 10 * IDLE + ms(1234);
    let world = World::one(reporting(Report::WorksUntil(Instant::now() + works)), |_| {});
    let begin = Instant::now();
    life(&world).await;
    assert_eq!(Instant::now() - begin, works + IDLE);
    // Once per timeout while it works, and when the timeout after that is over.
    assert_eq!(world.metric(r#"weir_vm_idle_checks_total{pool="p",result="working"}"#), 11.0);
    assert_eq!(world.metric(r#"weir_vm_idle_checks_total{pool="p",result="quiet"}"#), 1.0);
}

#[tokio::test(start_paused = true)]
async fn a_working_vm_takes_requests_as_any_other() {
    let world = World::one(reporting(Report::WorksUntil(Instant::now() + 100 * IDLE)), |_| {});
    let first = world.lease().await.vm();
    sleep(10 * IDLE + ms(1)).await;
    let lease = world.lease().await;
    assert_eq!((lease.vm(), lease.start()), (first, Start::Warm));
}

#[tokio::test(start_paused = true)]
async fn where_unused_is_idle_nobody_is_asked() {
    let world = World::one(reporting(Report::WorksUntil(Instant::now() + 100 * IDLE)), |pool| {
        pool.scale.idle = Idle::Unused;
    });
    assert_eq!(life(&world).await, IDLE);
    assert_eq!(world.sum("weir_vm_idle_checks_total"), 0.0);
}

#[tokio::test(start_paused = true)]
async fn a_silent_vm_is_kept_for_a_while_and_not_for_ever() {
    let world = World::one(reporting(Report::Silent), |_| {});
    let life = life(&world).await;
    assert!((2 * IDLE..5 * IDLE).contains(&life), "{life:?}");
    assert_eq!(world.metric(r#"weir_vm_idle_checks_total{pool="p",result="silent"}"#), 4.0);
}

#[tokio::test(start_paused = true)]
async fn answers_that_nobody_asked_for_change_nothing() {
    let world = World::one(ready(), |_| {});
    let vm = world.lease().await.vm();
    settle().await;
    for _ in 0..3 {
        advance(ms(1000)).await;
        world.launcher.say(vm, VmEvent::Report { quiet: Duration::ZERO });
        settle().await;
    }
    advance(IDLE - ms(3000)).await;
    settle().await;
    assert_eq!(world.alive(), 0);
    assert_eq!(world.sum("weir_vm_idle_checks_total"), 1.0);
}

#[tokio::test(start_paused = true)]
async fn work_is_no_demand_and_starts_nothing() {
    let world = World::one(reporting(Report::WorksUntil(Instant::now() + 100 * IDLE)), |_| {});
    let leases = [world.lease().await, world.lease().await, world.lease().await];
    world.until(|now| now.ready == 2).await;
    drop(leases);
    sleep(20 * IDLE).await;
    assert_eq!((world.alive(), world.launcher.started().len()), (2, 2), "kept, not added to");
    assert_eq!(world.metric(r#"weir_autoscaler_desired_instances{pool="p"}"#), 0.0);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_asks_for_nothing_keeps_no_vm_by_what_its_guest_does() {
    let world = World::one(reporting(Report::WorksUntil(Instant::now() + 100 * IDLE)), |pool| {
        (pool.isolation, pool.scale.min, pool.scale.max) = (Isolation::Connection, 1, 1);
    });
    let holder = world.pool().tenancy();
    drop(holder.lease().await.unwrap());
    sleep(IDLE / 2).await;
    let vm = world.launcher.alive("p")[0];
    assert_eq!(world.launcher.resets(vm), 0);
    sleep(IDLE).await;
    assert_eq!(world.launcher.resets(vm), 1, "by the idle timeout, not later");
}

/// Two VMs of pool "p" without requests on a full host, of which the one that has been so for longer works; pool "q" has
/// none.
async fn full_host() -> (World, VmId) {
    let (mut first, second) = (fake::pool("p"), fake::pool("q"));
    (first.soft_limit, first.hard_limit) = (1, 1);
    let mut config = fake::config([first, second]);
    config.host.max_vms = 2;
    let world = World::new(&config, ready());
    world.launcher.script_next(reporting(Report::WorksUntil(Instant::now() + 100 * IDLE)));
    let working = world.lease().await;
    let quiet = world.lease().await;
    let id = working.vm();
    drop(working);
    sleep(ms(5000)).await;
    drop(quiet);
    sleep(ms(5000)).await;
    (world, id)
}

#[tokio::test(start_paused = true)]
async fn other_pools_take_a_working_vm_after_those_that_are_idle() {
    let (world, working) = full_host().await;
    let other = world.pools.get("q").unwrap().clone();
    let begin = Instant::now();
    let lease = other.lease().await.unwrap();
    assert_eq!((lease.start(), Instant::now() - begin), (Start::Cold, BOOT), "at once");
    assert_eq!(world.launcher.alive("p"), [working]);
}

#[tokio::test(start_paused = true)]
async fn what_works_yields_to_other_pools_that_have_a_right_to_it() {
    let (world, _) = full_host().await;
    let other = world.pools.get("q").unwrap().clone();
    // More than its one VM takes: it needs both.
    let leases = join_all((0..8).map(|_| other.lease())).await;
    assert!(
        leases.iter().all(Result::is_ok),
        "{:?}",
        leases.iter().map(|l| l.as_ref().err()).collect::<Vec<_>>()
    );
    assert_eq!((world.alive(), world.launcher.alive("q").len()), (0, 2));
}

/// A peak that eight VMs were for, and then requests for one of them, but so many that none is quiet for long.
async fn after_a_peak(world: &World, seconds: u64) {
    let mut peak = join_all(world.requests(16)).await;
    world.until(|now| now.ready == 8).await;
    sleep(ms(2_000)).await;
    peak.clear();
    for _ in 0..seconds * 10 {
        let leases = [world.lease().await, world.lease().await];
        sleep(ms(50)).await;
        drop(leases);
        sleep(ms(50)).await;
    }
}

fn eight(pool: &mut Pool) {
    pool.scale.max = 8;
    pool.queue.max_pending = 100;
}

#[tokio::test(start_paused = true)]
async fn vms_that_are_too_many_go_though_they_are_never_quiet_for_long() {
    let world = World::one(ready(), eight);
    after_a_peak(&world, 90).await;
    assert_eq!(world.pool().instances().borrow().ready, 1);
    assert_eq!(world.launcher.started().len(), 8, "and none is started again");
    assert_eq!(world.sum("weir_requests_shed_total"), 0.0);
}

#[tokio::test(start_paused = true)]
async fn of_those_that_work_one_at_a_time_may_end_its_work_unless_others_wait_for_its_room() {
    let works = Report::WorksUntil(Instant::now() + 100 * IDLE);
    let mut pool = fake::pool("p");
    eight(&mut pool);
    let mut config = fake::config([pool, fake::pool("q")]);
    config.host.max_vms = 8;
    let world = World::new(&config, reporting(works));
    after_a_peak(&world, 90).await;
    let instances = *world.pool().instances().borrow();
    assert_eq!((instances.ready, instances.draining, world.alive()), (7, 1, 8));
    let begin = Instant::now();
    let other = world.pools.get("q").unwrap().lease().await.unwrap();
    assert_eq!((other.start(), Instant::now() - begin), (Start::Cold, BOOT));
    assert_eq!(world.alive(), 7);
}

#[tokio::test(start_paused = true)]
async fn where_requests_come_back_the_last_vm_is_kept_for_longer_and_not_the_others() {
    let world = World::one(ready(), |pool| pool.scale.keep_last = 10 * IDLE);
    let mut starts = Vec::new();
    for pause in [40, 40, 100] {
        drop(world.lease().await);
        sleep(Duration::from_secs(pause)).await;
        starts.push(world.launcher.started().len());
    }
    assert_eq!(starts, [1, 2, 3], "two came back too late for their VM, and showed that they come back");
    let lease = world.lease().await;
    assert_eq!((lease.start(), world.launcher.started().len()), (Start::Warm, 3));
    drop(lease);
    // Three payments of 150 s, less what it cost: two times 10 s, and 70 s. The first is the proof.
    assert_eq!(life(&world).await, IDLE + Duration::from_secs(2 * 150 - 20 - 70));
    let leases = join_all((0..3).map(|_| world.lease())).await;
    world.until(|now| now.ready == 2).await;
    drop(leases);
    sleep(IDLE + ms(1)).await;
    assert_eq!(world.alive(), 1);
}
