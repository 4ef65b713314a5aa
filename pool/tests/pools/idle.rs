//! VMs without requests that work all the same.

use std::time::Duration;

use tokio::time::{Instant, advance, sleep};
use weir_config::model::{Idle, Isolation};
use weir_pool::Start;
use weir_pool::fake::{Report, Script};
use weir_vmm::VmEvent;

use crate::support::{World, ms, ready, settle};

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
