//! Pools that share a host that is too small for all of them.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::join_all;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use weir_config::model::{Config, Pool};
use weir_pool::fake::{self, Boot, Script};
use weir_pool::{Lease, LeaseError, Start};

use crate::support::{Anonymous, BOOT, World, ms, ready, settle};

/// Pools "p" and "q", one request per VM, on a host with room for so many.
fn pair(max_vms: u32, change: impl Fn(&mut Pool)) -> Config {
    let pools = ["p", "q"].map(|name| {
        let mut pool = fake::pool(name);
        (pool.soft_limit, pool.hard_limit) = (1, 1);
        (pool.scale.max, pool.queue.max_pending) = (64, 1000);
        change(&mut pool);
        pool
    });
    let mut config = fake::config(pools);
    config.host.max_vms = max_vms;
    config
}

fn request(world: &World, pool: &str) -> JoinHandle<Result<Lease, LeaseError>> {
    let pool = world.pools.get(pool).unwrap().clone();
    tokio::spawn(async move { pool.lease().await })
}

async fn leases(world: &World, pool: &str, count: usize) -> Vec<Lease> {
    let requests: Vec<_> = (0..count).map(|_| request(world, pool)).collect();
    join_all(requests).await.into_iter().map(|lease| lease.unwrap().unwrap()).collect()
}

fn alive(world: &World) -> [usize; 2] {
    ["p", "q"].map(|pool| world.launcher.alive(pool).len())
}

#[tokio::test(start_paused = true)]
async fn min_is_set_aside() {
    let config = pair(3, |pool| pool.scale.min = u32::from(pool.name == "q"));
    let world = World::new(&config, ready());
    let held = leases(&world, "p", 2).await;
    let waiting = request(&world, "p");
    sleep(ms(500)).await;
    assert_eq!(alive(&world), [2, 1]);
    assert!(!waiting.is_finished());
    drop(held);
    assert_eq!(waiting.await.unwrap().unwrap().start(), Start::Warm);
}

#[tokio::test(start_paused = true)]
async fn an_idle_vm_makes_way_for_another_pool_at_once() {
    let world = World::new(&pair(3, |_| ()), ready());
    drop(leases(&world, "p", 3).await);
    sleep(ms(100)).await;
    assert_eq!(alive(&world), [3, 0]);
    let begin = Instant::now();
    let held = leases(&world, "q", 2).await;
    assert_eq!((Instant::now() - begin, alive(&world)), (BOOT, [1, 2]), "no more than is needed");
    drop(held);
}

#[tokio::test(start_paused = true)]
async fn a_vm_with_a_lease_is_not_taken_and_is_the_other_s_when_the_lease_ends() {
    let world = World::new(&pair(2, |pool| pool.queue.timeout = ms(100_000)), ready());
    let held = leases(&world, "p", 2).await;
    let more = request(&world, "p");
    let waiting = request(&world, "q");
    sleep(ms(60_000)).await;
    assert!(!more.is_finished() && !waiting.is_finished());
    assert_eq!(alive(&world), [2, 0]);
    drop(held);
    assert_eq!(more.await.unwrap().unwrap().start(), Start::Warm);
    assert_eq!(waiting.await.unwrap().unwrap().start(), Start::Cold);
    assert_eq!(alive(&world), [1, 1]);
}

/// Requests of 100 ms to both pools, more than the host can serve; how many of each were served within `time`.
async fn served(world: &World, time: Duration) -> BTreeMap<&'static str, usize> {
    let until = Instant::now() + time;
    let clients = ["p", "q"].into_iter().flat_map(|pool| std::iter::repeat_n(pool, 40)).map(|name| {
        let pool = world.pools.get(name).unwrap().clone();
        tokio::spawn(async move {
            let mut served = 0;
            while Instant::now() < until {
                let lease = pool.lease().await.unwrap();
                sleep(ms(100)).await;
                drop(lease);
                served += 1;
            }
            (name, served)
        })
    });
    let clients: Vec<_> = clients.collect();
    let mut served = BTreeMap::new();
    for client in clients {
        let (name, count) = client.await.unwrap();
        *served.entry(name).or_default() += count;
    }
    served
}

#[tokio::test(start_paused = true)]
async fn pools_that_all_want_more_divide_the_host_by_weight_whoever_came_first() {
    let config = pair(16, |pool| pool.weight = if pool.name == "p" { 1 } else { 3 });
    let world = World::new(&config, ready());
    let first = leases(&world, "p", 16).await;
    assert_eq!(alive(&world), [16, 0]);
    drop(first);
    served(&world, ms(3_000)).await;
    assert_eq!(alive(&world), [4, 12], "within seconds, though no vm with a request was stopped");
    let served = served(&world, ms(20_000)).await;
    assert!(served["q"] > 28 * served["p"] / 10 && served["q"] <= 3 * served["p"], "{served:?}");
}

#[tokio::test(start_paused = true)]
async fn starts_under_way_are_capped_and_a_pool_that_wants_many_does_not_hold_up_one_that_wants_one() {
    let mut config = pair(512, |pool| pool.scale.max = 256);
    config.host.max_starts = 4;
    let world = World::new(&config, ready());
    let storm: Vec<_> = (0..100).map(|_| request(&world, "p")).collect();
    settle().await;
    assert_eq!(world.launcher.started().len(), 4);
    assert_eq!(world.metric(r#"weir_vm_starts_waiting{pool="p"}"#), 96.0);
    let begin = Instant::now();
    let one = request(&world, "q").await.unwrap().unwrap();
    assert_eq!((one.start(), Instant::now() - begin), (Start::Cold, BOOT * 2), "it is the next");
    for request in storm {
        request.await.unwrap().unwrap();
    }
    let started = world.launcher.started();
    let mut by_time: BTreeMap<Instant, usize> = BTreeMap::new();
    for start in &started {
        *by_time.entry(start.at).or_default() += 1;
    }
    assert!(by_time.values().all(|count| *count <= 4), "{by_time:?}");
    sleep(ms(1_000)).await;
    assert_eq!(world.metric(r#"weir_vm_starts_waiting{pool="p"}"#), 0.0);
}

#[tokio::test(start_paused = true)]
async fn guests_that_never_become_ready_do_not_keep_other_pools_from_starting() {
    let mut config = pair(512, |_| ());
    config.host.max_starts = 2;
    let world = World::new(&config, ready());
    for _ in 0..8 {
        world.launcher.script_next(Script::boot(Boot::Silent));
    }
    let _stuck: Vec<_> = (0..8).map(|_| request(&world, "p")).collect();
    settle().await;
    world.launcher.forget_scripts();
    assert_eq!(world.launcher.started().len(), 2);
    let begin = Instant::now();
    request(&world, "q").await.unwrap().unwrap();
    assert_eq!(Instant::now() - begin, ms(250) + BOOT);
}
