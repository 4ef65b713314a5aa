//! VMs that go back to their snapshot between requests, or between connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::Duration;

use futures::future::join_all;
use parking_lot::Mutex;
use tokio::time::{Instant, advance, sleep};
use weir_config::model::{Isolation, Pool};
use weir_pool::fake::{Reset, Script};
use weir_pool::{Start, StartKind};
use weir_vmm::{ExitReason, VmEvent};

use crate::support::{Anonymous, BOOT, World, ms, ready, settle};

const RESET: Duration = Duration::from_millis(3);
const IDLE: Duration = Duration::from_secs(30);

fn isolated(isolation: Isolation, max: u32) -> impl FnOnce(&mut Pool) {
    move |pool| {
        pool.isolation = isolation;
        (pool.soft_limit, pool.hard_limit, pool.scale.max) = (1, 1, max);
    }
}

fn resettable() -> Script {
    Script { reset: Reset::Ready(RESET), ..ready() }
}

fn world(isolation: Isolation, max: u32) -> World {
    World::one(resettable(), isolated(isolation, max))
}

#[tokio::test(start_paused = true)]
async fn the_next_request_gets_the_vm_when_it_is_clean_and_not_before() {
    let world = world(Isolation::Request, 1);
    let first = world.lease().await;
    let waiting = world.request();
    settle().await;
    let end = Instant::now();
    let generation = first.generation();
    drop(first);
    settle().await;
    assert!(!waiting.is_finished(), "the VM is dirty");
    let second = waiting.await.unwrap().unwrap();
    assert_eq!((Instant::now() - end, second.generation()), (RESET, generation + 1));
    assert_eq!((second.start(), world.launcher.started().len()), (Start::Warm, 1));
    drop(second);
    sleep(RESET).await;
    settle().await;
    assert_eq!(world.metric(r#"weir_vm_resets_total{pool="p"}"#), 2.0);
    assert_eq!(world.metric(r#"weir_vm_reset_duration_seconds_sum{pool="p"}"#), 0.006);
}

#[tokio::test(start_paused = true)]
async fn what_belongs_to_a_tenancy_is_taken_down_before_the_reset() {
    let world = world(Isolation::Request, 1);
    let (down, resets) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    world.launcher.script_next(Script { resets: resets.clone(), ..resettable() });
    let log = Arc::new(Mutex::new(Vec::new()));
    for round in 1..=3 {
        let lease = world.lease().await;
        let (down, resets, log) = (down.clone(), resets.clone(), log.clone());
        lease.before_reset(move || log.lock().push((down.fetch_add(1, SeqCst), resets.load(SeqCst))));
        drop(lease);
        sleep(RESET).await;
        settle().await;
        assert_eq!(world.metric(r#"weir_vm_resets_total{pool="p"}"#), f64::from(round));
    }
    assert_eq!(*log.lock(), [(0, 0), (1, 1), (2, 2)]);
}

#[tokio::test(start_paused = true)]
async fn a_vm_that_hangs_in_its_reset_is_killed_and_replaced() {
    let world = world(Isolation::Request, 1);
    world.launcher.script_next(Script { reset: Reset::Hangs, ..ready() });
    let first = world.lease().await;
    let (vm, waiting) = (first.vm(), world.request());
    settle().await;
    let end = Instant::now();
    drop(first);
    let second = waiting.await.unwrap().unwrap();
    assert_ne!(second.vm(), vm);
    let took = Instant::now() - end;
    assert!(took >= ms(1000) + BOOT, "{took:?}");
    assert_eq!(world.metric(r#"weir_vm_exits_total{pool="p",reason="reset_timeout"}"#), 1.0);
}

#[tokio::test(start_paused = true)]
async fn a_vm_that_ends_instead_is_gone_and_no_failed_start() {
    let world = world(Isolation::Request, 1);
    world.launcher.script_usual(Script { reset: Reset::Exits(RESET, ExitReason::Stopped), ..ready() });
    let begin = Instant::now();
    for _ in 0..5 {
        drop(world.lease().await);
        world.until(|now| now.total() == 0).await;
    }
    assert_eq!(Instant::now() - begin, 5 * (BOOT + RESET), "nobody backs off");
    world.launcher.script_usual(Script { reset: Reset::Exits(RESET, ExitReason::Exited(1)), ..ready() });
    for _ in 0..3 {
        drop(world.lease().await);
        world.until(|now| now.total() == 0).await;
    }
    assert!(Instant::now() - begin > 8 * (BOOT + RESET), "a crash is a failure");
}

#[tokio::test(start_paused = true)]
async fn a_ready_that_nobody_asked_for_cleans_nothing() {
    let world = world(Isolation::Request, 1);
    let lease = world.lease().await;
    for _ in 0..3 {
        world.launcher.say(lease.vm(), VmEvent::Ready);
    }
    settle().await;
    let (generation, waiting) = (lease.generation(), world.request());
    settle().await;
    assert!(!waiting.is_finished());
    drop(lease);
    let next = waiting.await.unwrap().unwrap();
    assert_eq!(next.generation(), generation + 1);
    world.launcher.say(next.vm(), VmEvent::Ready);
    settle().await;
    assert_eq!(next.generation(), generation + 1);
}

#[tokio::test(start_paused = true)]
async fn a_vm_that_drains_is_stopped_as_it_is() {
    let world = world(Isolation::Request, 1);
    let lease = world.lease().await;
    lease.suspect();
    drop(lease);
    world.until(|now| now.total() == 0).await;
    // One that is being reset when the end comes.
    world.launcher.script_usual(Script { reset: Reset::Hangs, ..ready() });
    drop(world.lease().await);
    let begin = Instant::now();
    world.pools.drain(IDLE).await;
    assert_eq!((Instant::now(), world.alive()), (begin, 0));
    assert_eq!(world.metric(r#"weir_vm_resets_total{pool="p"}"#), 1.0, "the suspect was not reset");
}

#[tokio::test(start_paused = true)]
async fn an_isolated_vm_goes_when_it_has_been_idle_and_min_stays() {
    let world = world(Isolation::Request, 2);
    let leases = join_all(world.requests(2)).await;
    let end = Instant::now();
    drop(leases);
    world.until(|now| now.total() == 0).await;
    assert!((IDLE..IDLE * 2 + RESET).contains(&(Instant::now() - end)), "{:?}", Instant::now() - end);
}

#[tokio::test(start_paused = true)]
async fn starts_are_told_apart_by_what_the_vm_was_made_from() {
    let world = world(Isolation::Vm, 1);
    for (kind, start) in
        [(StartKind::Cold, Start::Cold), (StartKind::Clone, Start::Clone), (StartKind::Prefork, Start::Clone)]
    {
        world.launcher.script_next(Script { kind, ..ready() });
        let lease = world.lease().await;
        assert_eq!(lease.start(), start);
        world.launcher.crash(lease.vm(), ExitReason::Stopped);
        world.until(|now| now.total() == 0).await;
        sleep(IDLE).await;
        let series = format!(r#"weir_vm_start_duration_seconds_count{{kind="{}",pool="p"}}"#, kind.label());
        assert_eq!(world.metric(&series), 1.0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_keeps_its_vm_and_shares_it_with_nobody() {
    let world = world(Isolation::Connection, 4);
    let (one, other) = (world.pool().tenancy(), world.pool().tenancy());
    let (first, others) = (one.lease().await.unwrap(), other.lease().await.unwrap());
    assert_ne!(first.vm(), others.vm());
    let at_once = [one.lease().await.unwrap(), one.lease().await.unwrap()];
    assert!(at_once.iter().all(|lease| (lease.vm(), lease.start()) == (first.vm(), Start::Warm)));
    let (vm, generation) = (first.vm(), first.generation());
    drop((first, at_once));
    sleep(IDLE / 2).await;
    let later = one.lease().await.unwrap();
    assert_eq!((later.vm(), later.generation()), (vm, generation));
    assert_eq!(world.sum("weir_vm_resets_total"), 0.0);

    // The connection's end, with a request in flight.
    drop(one);
    settle().await;
    assert_eq!(world.sum("weir_vm_resets_total"), 0.0);
    drop(later);
    sleep(RESET).await;
    let next = world.pool().tenancy();
    let lease = next.lease().await.unwrap();
    assert_eq!((lease.vm(), lease.generation()), (vm, generation + 1));
    // And without one.
    drop(lease);
    drop(next);
    assert_eq!(world.sum("weir_vm_resets_total"), 2.0);
}

#[tokio::test(start_paused = true)]
async fn requests_of_a_connection_that_come_while_it_waits_get_the_same_vm() {
    let world = world(Isolation::Connection, 4);
    let tenancy = Arc::new(world.pool().tenancy());
    let ask = || {
        let tenancy = tenancy.clone();
        tokio::spawn(async move { tenancy.lease().await })
    };
    let (quitter, requests) = (ask(), [ask(), ask(), ask()]);
    settle().await;
    assert_eq!((world.alive(), world.pool().queued()), (1, 1), "one connection is demand for one VM");
    quitter.abort();
    let leases = join_all(requests).await;
    let vms: Vec<_> = leases.iter().map(|lease| lease.as_ref().unwrap().as_ref().unwrap().vm()).collect();
    assert!(vms.iter().all(|vm| *vm == vms[0]), "{vms:?}");
}

#[tokio::test(start_paused = true)]
async fn a_connection_whose_vm_dies_goes_on_with_another() {
    let world = world(Isolation::Connection, 1);
    let tenancy = world.pool().tenancy();
    let lease = tenancy.lease().await.unwrap();
    sleep(ms(1500)).await;
    world.launcher.crash(lease.vm(), ExitReason::Panicked("x".into()));
    settle().await;
    let other = tenancy.lease().await.unwrap();
    assert_ne!(other.vm(), lease.vm());
    let suspect = other.vm();
    other.suspect();
    drop(other);
    assert_ne!(tenancy.lease().await.unwrap().vm(), suspect, "nor is a suspect asked again");
}

#[tokio::test(start_paused = true)]
async fn idle_connections_make_way_longest_idle_first_and_find_a_clean_vm_later() {
    let world = world(Isolation::Connection, 2);
    let tenancies = [world.pool().tenancy(), world.pool().tenancy()];
    let leases = [tenancies[0].lease().await.unwrap(), tenancies[1].lease().await.unwrap()];
    let vms = leases.each_ref().map(weir_pool::Lease::vm);
    let [first, second] = leases;
    drop(second);
    advance(ms(5)).await;
    drop(first);
    advance(ms(5)).await;
    let third = world.lease().await;
    assert_eq!((third.vm(), third.queued()), (vms[1], RESET));
    // The next one in need finds the other idle; and the one after that none.
    let fourth = world.lease().await;
    assert_eq!(fourth.vm(), vms[0]);
    let fifth = tokio::spawn(async move { tenancies[0].lease().await.map(|lease| (lease, tenancies)) });
    sleep(RESET * 2).await;
    assert!(!fifth.is_finished());
    drop(third);
    let (lease, _tenancies) = fifth.await.unwrap().unwrap();
    assert_eq!((lease.vm(), lease.generation()), (vms[1], 2));
}

#[tokio::test(start_paused = true)]
async fn who_waits_gets_the_vm_of_a_connection_that_falls_idle() {
    let world = world(Isolation::Connection, 1);
    let tenancy = world.pool().tenancy();
    let lease = tenancy.lease().await.unwrap();
    let waiting = world.request();
    sleep(ms(500)).await;
    assert!(!waiting.is_finished(), "it has a request in flight");
    let end = Instant::now();
    drop(lease);
    waiting.await.unwrap().unwrap();
    assert_eq!(Instant::now() - end, RESET);
}

#[tokio::test(start_paused = true)]
async fn a_connection_loses_its_vm_after_the_idle_timeout() {
    let world = world(Isolation::Connection, 4);
    let tenancy = world.pool().tenancy();
    drop(tenancy.lease().await.unwrap());
    let end = Instant::now();
    world.until(|now| now.total() == 0).await;
    assert_eq!((Instant::now() - end, world.sum("weir_vm_resets_total")), (IDLE, 0.0));

    let kept = World::one(resettable(), |pool| {
        isolated(Isolation::Connection, 4)(pool);
        pool.scale.min = 1;
    });
    kept.until(|now| now.ready == 1).await;
    let tenancy = kept.pool().tenancy();
    let generation = {
        let lease = tenancy.lease().await.unwrap();
        sleep(IDLE * 2).await;
        assert_eq!(kept.sum("weir_vm_resets_total"), 0.0);
        lease.generation()
    };
    sleep(IDLE + ms(1)).await;
    assert_eq!((kept.sum("weir_vm_resets_total"), kept.launcher.started().len()), (1.0, 1));
    sleep(RESET).await;
    assert_eq!(tenancy.lease().await.unwrap().generation(), generation + 1);
}

#[tokio::test(start_paused = true)]
async fn idle_connections_do_not_hold_a_drain_up() {
    let world = world(Isolation::Connection, 2);
    let tenancy = world.pool().tenancy();
    drop(tenancy.lease().await.unwrap());
    let begin = Instant::now();
    world.pools.drain(IDLE).await;
    assert_eq!((Instant::now(), world.alive()), (begin, 0));
    assert!(tenancy.lease().await.is_err());
}

// Threads, not turns: what one request leaves in a VM, no other finds.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_trace_is_found_by_another_under_real_concurrency() {
    let traces = Arc::new(Mutex::new(std::collections::BTreeMap::new()));
    for isolation in [Isolation::Request, Isolation::Connection] {
        let world = World::one(Script { reset: Reset::Ready(Duration::ZERO), ..ready() }, |pool| {
            isolated(isolation, 3)(pool);
            pool.queue.max_pending = 1000;
        });
        let clients =
            (0..16u32).map(|client| {
                let (pool, traces) = (world.pool().clone(), traces.clone());
                tokio::spawn(async move {
                    for _ in 0..40 {
                        let tenancy = pool.tenancy();
                        for _ in 0..3 {
                            let lease = tenancy.lease().await.unwrap();
                            let place = (isolation == Isolation::Request, lease.vm(), lease.generation());
                            let before = traces.lock().insert(place, client);
                            assert!(before.is_none_or(|before| {
                                isolation == Isolation::Connection && before == client
                            }));
                            tokio::task::yield_now().await;
                        }
                    }
                })
            });
        join_all(clients).await.into_iter().for_each(|client| client.unwrap());
        traces.lock().clear();
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_comes_while_its_connection_waits_waits_no_longer_than_others() {
    let world = world(Isolation::Connection, 1);
    let holder = world.pool().tenancy();
    let _lease = holder.lease().await.unwrap();
    let timeout = world.pool().config().queue.timeout;
    let (tenancy, begin) = (world.pool().tenancy(), Instant::now());
    let second = async {
        sleep(timeout / 2).await;
        tenancy.lease().await.map(drop)
    };
    let (first, second) = tokio::join!(tenancy.lease(), second);
    assert!(first.is_err() && second.is_err());
    assert_eq!(Instant::now() - begin, timeout / 2 + timeout);
}
