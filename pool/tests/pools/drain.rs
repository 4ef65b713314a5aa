//! The end.

use std::time::Duration;

use futures::future::join_all;
use tokio::time::{Instant, sleep};
use weir_pool::LeaseError;
use weir_pool::fake::{Boot, Script};

use crate::support::{Anonymous, World, ms, ready, settle};

const LONG: Duration = Duration::from_secs(60);

#[tokio::test(start_paused = true)]
async fn drain_waits_for_leases_then_stops_all() {
    let world = World::one(ready(), |pool| pool.scale.min = 3);
    let lease = world.lease().await;
    world.until(|now| now.ready == 3).await;
    let pools = world.pools.clone();
    let drained = tokio::spawn(async move { pools.drain(LONG).await });
    sleep(ms(2000)).await;
    assert_eq!(world.launcher.alive("p"), [lease.vm()], "idle ones go at once, the busy one stays");
    assert_eq!(world.pool().lease().await.unwrap_err(), LeaseError::ShuttingDown);
    assert!(!drained.is_finished());
    let end = Instant::now();
    drop(lease);
    drained.await.unwrap();
    assert_eq!((Instant::now(), world.alive()), (end, 0));
    world.pools.drain(LONG).await;
}

#[tokio::test(start_paused = true)]
async fn drain_ends_leases_at_its_deadline() {
    let world = World::one(ready(), |_| {});
    let _lease = world.lease().await;
    let begin = Instant::now();
    world.pools.drain(ms(700)).await;
    assert_eq!((Instant::now() - begin, world.alive()), (ms(700), 0));
}

#[tokio::test(start_paused = true)]
async fn requests_that_wait_are_served_before_the_end() {
    let world = World::one(ready(), |_| {});
    let waiting = world.requests(3);
    settle().await;
    let pools = world.pools.clone();
    let drained = tokio::spawn(async move { pools.drain(LONG).await });
    settle().await;
    assert_eq!(world.pool().lease().await.unwrap_err(), LeaseError::ShuttingDown);
    let leases = join_all(waiting).await;
    assert!(leases.iter().all(|lease| lease.as_ref().unwrap().is_ok()));
    drop(leases);
    drained.await.unwrap();
    assert_eq!(world.alive(), 0);
}

#[tokio::test(start_paused = true)]
async fn requests_that_wait_in_vain_are_answered_at_the_deadline() {
    let world = World::one(Script::boot(Boot::Silent), |_| {});
    let waiting = world.request();
    settle().await;
    world.pools.drain(ms(400)).await;
    assert_eq!(waiting.await.unwrap().unwrap_err(), LeaseError::ShuttingDown);
    assert_eq!(world.alive(), 0);
}

#[tokio::test(start_paused = true)]
async fn vm_that_does_not_listen_is_killed_after_a_grace() {
    let world = World::one(Script { stop: None, ..ready() }, |_| {});
    drop(world.lease().await);
    let begin = Instant::now();
    world.pools.drain(LONG).await;
    assert_eq!((Instant::now() - begin, world.alive()), (ms(1000), 0));
}

#[tokio::test(start_paused = true)]
async fn vm_that_cannot_be_killed_does_not_hold_the_end_up() {
    let world = World::one(ready(), |pool| pool.scale.min = 2);
    let lease = world.lease().await;
    world.launcher.stick(lease.vm());
    drop(lease);
    let begin = Instant::now();
    world.pools.drain(ms(700)).await;
    assert_eq!((Instant::now() - begin, world.alive()), (ms(5700), 1));
}

#[tokio::test(start_paused = true)]
async fn start_that_hangs_is_given_up_after_a_grace() {
    let world = World::one(Script::boot(Boot::Hangs), |pool| pool.scale.min = 1);
    settle().await;
    let begin = Instant::now();
    world.pools.drain(LONG).await;
    assert_eq!((Instant::now() - begin, world.alive()), (ms(1000), 0));
}

#[tokio::test(start_paused = true)]
async fn vms_that_boot_are_stopped() {
    let world = World::one(Script::boot(Boot::Silent), |pool| pool.scale.min = 2);
    settle().await;
    assert_eq!(world.alive(), 2);
    let begin = Instant::now();
    world.pools.drain(LONG).await;
    assert_eq!((Instant::now(), world.alive()), (begin, 0));
}
