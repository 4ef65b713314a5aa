//! How many VMs there are.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::future::join_all;
use tokio::time::{Instant, advance, sleep};
use weir_config::model::Schedule;
use weir_pool::Start;
use weir_pool::fake::{self, Boot, Script};

use crate::support::{Anonymous, BOOT, World, ms, ready, settle};

const IDLE: Duration = Duration::from_secs(30);

#[tokio::test(start_paused = true)]
async fn first_request_starts_a_vm_and_waits_for_its_ready() {
    let world = World::one(ready(), |_| {});
    assert_eq!(world.alive(), 0);
    let cold = world.lease().await;
    assert_eq!((cold.start(), cold.queued()), (Start::Cold, BOOT));
    let warm = world.lease().await;
    assert_eq!((warm.start(), warm.queued(), warm.vm()), (Start::Warm, Duration::ZERO, cold.vm()));
    assert_eq!(world.launcher.started().len(), 1);
    assert_eq!(world.metric(r#"weir_vm_instances{pool="p",state="ready"}"#), 1.0);
    assert_eq!(world.metric(r#"weir_vm_start_duration_seconds_count{kind="cold",pool="p"}"#), 1.0);
    assert_eq!(world.metric(r#"weir_queue_wait_seconds_count{pool="p"}"#), 1.0);
}

#[tokio::test(start_paused = true)]
async fn burst_from_zero_is_spread_over_the_vms_it_starts() {
    let world = World::one(ready(), |_| {});
    let leases: Vec<_> = join_all(world.requests(6)).await.into_iter().map(|l| l.unwrap().unwrap()).collect();
    assert_eq!(world.launcher.started().len(), 3, "soft limit 2");
    let vms: BTreeSet<_> = leases.iter().map(|lease| lease.vm()).collect();
    assert_eq!(vms.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn requests_do_not_wait_for_a_vm_that_is_slow_to_come_up() {
    let world = World::one(ready(), |_| {});
    world.launcher.script_next(ready());
    world.launcher.script_next(fake::Script::boot(fake::Boot::Ready(ms(4000))));
    let begin = Instant::now();
    let leases = join_all(world.requests(4)).await;
    assert_eq!(world.launcher.started().len(), 2);
    let vms: BTreeSet<_> =
        leases.iter().map(|lease| lease.as_ref().unwrap().as_ref().unwrap().vm()).collect();
    assert_eq!(vms.len(), 1, "all four on the one that is up, at the hard limit");
    assert_eq!(
        begin.elapsed_until_now(),
        BOOT + ms(50),
        "after they were held back for the other for a while"
    );
}

#[tokio::test(start_paused = true)]
async fn demand_above_the_soft_limit_starts_another_vm_up_to_max() {
    let world = World::one(ready(), |pool| pool.scale.max = 2);
    let mut leases = vec![world.lease().await, world.lease().await];
    assert_eq!(world.alive(), 1);
    leases.push(world.lease().await);
    world.until(|now| now.ready == 2).await;
    for _ in 3..8 {
        leases.push(world.lease().await);
    }
    sleep(ms(1000)).await;
    assert_eq!((world.launcher.started().len(), world.alive()), (2, 2));
    assert_eq!(world.metric(r#"weir_autoscaler_desired_instances{pool="p"}"#), 2.0);
}

#[tokio::test(start_paused = true)]
async fn idle_vm_goes_exactly_at_the_timeout() {
    let world = World::one(ready(), |_| {});
    drop(world.lease().await);
    settle().await;
    advance(IDLE - ms(1)).await;
    settle().await;
    assert_eq!(world.alive(), 1);
    advance(ms(1)).await;
    settle().await;
    assert_eq!(world.alive(), 0);
    assert_eq!(world.metric(r#"weir_vm_exits_total{pool="p",reason="stopped"}"#), 1.0);
    assert_eq!(world.metric(r#"weir_vm_instances{pool="p",state="ready"}"#), 0.0);
    assert_eq!(world.lease().await.start(), Start::Cold);
}

#[tokio::test(start_paused = true)]
async fn vm_with_a_live_lease_is_never_idle_and_the_timeout_counts_from_its_end() {
    let world = World::one(ready(), |_| {});
    let lease = world.lease().await;
    sleep(IDLE * 10 + ms(17)).await;
    assert_eq!(world.alive(), 1);
    drop(lease);
    let end = Instant::now();
    world.until(|now| now.total() == 0).await;
    assert_eq!(end.elapsed_until_now(), IDLE);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_request_meets_a_vm_that_goes_for_being_idle() {
    const CLIENTS: u64 = 6;
    const ROUNDS: u64 = 1000;
    let world = World::one(Script::boot(Boot::Ready(ms(1))), |pool| {
        pool.scale.idle_timeout = ms(1);
        pool.scale.max = 2;
        pool.queue.max_pending = 100;
    });
    let gone = || world.sum("weir_vm_exits_total{");
    for round in 0..ROUNDS {
        let requests = (0..CLIENTS).map(|n| {
            let (pool, launcher) = (world.pool().clone(), world.launcher.clone());
            tokio::spawn(async move {
                // Idle before for about as long as it takes a VM to go.
                sleep(Duration::from_micros((n * 311 + round * 977) % 25_000)).await;
                let lease = pool.lease().await.unwrap();
                tokio::task::yield_now().await;
                assert!(launcher.alive("p").contains(&lease.vm()), "stopped under its lease");
            })
        });
        for request in join_all(requests).await {
            request.unwrap();
        }
        if round >= 60 && gone() >= 10.0 {
            break;
        }
    }
    assert!(gone() >= 10.0, "none went");
    assert_eq!(world.sum("weir_requests_shed_total"), 0.0);
}

#[tokio::test(start_paused = true)]
async fn min_is_started_without_demand_kept_when_idle_and_replaced() {
    let world = World::one(ready(), |pool| pool.scale.min = 2);
    world.until(|now| now.ready == 2).await;
    let leases = join_all(world.requests(6)).await;
    world.until(|now| now.ready == 3).await;
    drop(leases);
    world.until(|now| now.total() == 2).await;
    sleep(IDLE * 10).await;
    assert_eq!(world.alive(), 2);
    let victim = world.launcher.alive("p")[0];
    world.launcher.crash(victim, weir_vmm::ExitReason::Died("signal 9".into()));
    world.until(|now| now.ready == 1).await;
    world.until(|now| now.ready == 2).await;
    assert!(!world.launcher.alive("p").contains(&victim));
}

#[tokio::test(start_paused = true)]
async fn what_a_peak_has_left_goes_though_requests_are_spread_over_it() {
    let world = World::one(ready(), |pool| pool.scale.idle_timeout = ms(3_600_000));
    let mut peak = join_all(world.requests(8)).await;
    world.until(|now| now.ready == 4).await;
    sleep(ms(10_000)).await;
    peak.truncate(1);
    sleep(ms(19_000)).await;
    assert_eq!(world.alive(), 2, "80 request seconds and more within 30 s, and a quarter to spare");
    sleep(ms(13_000)).await;
    assert_eq!(world.alive(), 1);
    sleep(ms(60_000)).await;
    assert_eq!((world.alive(), world.launcher.started().len()), (1, 4), "and that is that");
}

#[tokio::test(start_paused = true)]
async fn a_busy_vm_that_is_not_needed_drains_and_its_requests_are_served_to_their_end() {
    let world = World::one(ready(), |pool| {
        (pool.soft_limit, pool.hard_limit) = (4, 4);
        pool.scale.max = 2;
    });
    let mut leases: Vec<_> =
        join_all(world.requests(8)).await.into_iter().map(|l| l.unwrap().unwrap()).collect();
    let one = leases[0].vm();
    let other = leases.iter().find(|lease| lease.vm() != one).unwrap().vm();
    let keep = |leases: &[weir_pool::Lease], vm| leases.iter().position(|lease| lease.vm() == vm).unwrap();
    let kept = [one, other].map(|vm| leases.swap_remove(keep(&leases, vm)));
    drop(leases);
    world.until(|now| (now.ready, now.draining) == (1, 1)).await;
    sleep(ms(600_000)).await;
    assert_eq!(world.alive(), 2, "a lease keeps its vm");
    drop(kept);
    world.until(|now| now.total() == 0).await;
}

#[tokio::test(start_paused = true)]
async fn a_schedule_s_minimum_is_kept() {
    let world = World::one(ready(), |pool| {
        let always = Schedule { days: [true; 7], from: 0, to: 1440, min: 2 };
        pool.scale.schedule = vec![always];
    });
    world.until(|now| now.ready == 2).await;
    sleep(IDLE * 10).await;
    assert_eq!((world.alive(), world.launcher.started().len()), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn demand_that_vms_are_slow_to_meet_is_panic_and_nothing_is_retired_meanwhile() {
    let world = World::one(Script::boot(Boot::Ready(ms(4_000))), |pool| pool.scale.idle_timeout = ms(1_000));
    let panic = || world.metric(r#"weir_autoscaler_panic{pool="p"}"#);
    let requests = world.requests(8);
    settle().await;
    assert_eq!(panic(), 0.0);
    drop(join_all(requests).await);
    assert_eq!(panic(), 1.0);
    sleep(ms(20_000)).await;
    assert_eq!((world.alive(), panic()), (4, 1.0));
    world.until(|now| now.total() == 0).await;
    assert_eq!(panic(), 0.0);
}

trait ElapsedUntilNow {
    fn elapsed_until_now(&self) -> Duration;
}

impl ElapsedUntilNow for Instant {
    fn elapsed_until_now(&self) -> Duration {
        Instant::now() - *self
    }
}

/// What takes as long as there are VMs must not be done for each of them: these would take minutes.
#[tokio::test(start_paused = true)]
async fn thousands_of_vms_come_up_and_go() {
    const VMS: u32 = 4000;
    let mut pool = fake::pool("p");
    (pool.scale.min, pool.scale.max) = (VMS, VMS);
    let mut config = fake::config([pool]);
    (config.host.max_vms, config.host.memory) = (VMS, u64::MAX);
    let world = World::new(&config, ready());
    world.until(|now| now.ready == VMS).await;
    assert_eq!(world.launcher.started().len(), VMS as usize);
    world.pools.drain(IDLE).await;
    assert_eq!(world.alive(), 0);
}
