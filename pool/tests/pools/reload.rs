//! Pools that become others while they are used.

use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::sleep;
use weir_config::change::Change;
use weir_config::model::{Config, Pool};
use weir_pool::fake::{self, Boot, Script};
use weir_pool::{LeaseError, Revision, VmState};
use weir_vmm::ExitReason;

use crate::support::{Anonymous, World, ms, ready, settle};

const LONG: Duration = Duration::from_secs(60);

/// A host with these pools.
fn of(pools: impl IntoIterator<Item = Pool>) -> Config {
    fake::config(pools)
}

fn pool(name: &str, change: impl FnOnce(&mut Pool)) -> Pool {
    let mut pool = fake::pool(name);
    change(&mut pool);
    pool
}

impl World {
    /// From the one configuration to the other, as weir does it.
    async fn reload(&self, old: &Config, new: &Config) -> Result<(), String> {
        let change = Change::between(old, new).map_err(|error| error.to_string())?;
        let staged = self.pools.stage(&change).await.map_err(|error| error.to_string())?;
        staged.commit().await;
        let gone = old.pools.keys().filter(|name| !new.pools.contains_key(*name));
        self.pools.retire(gone.map(String::as_str));
        Ok(())
    }

    /// Images that VMs of "p" that take requests were started from.
    async fn images(&self) -> Vec<String> {
        let status = self.pool().status().await.unwrap();
        let started = self.launcher.started();
        let image = |id| started.iter().find(|vm| vm.id == id).unwrap().image.clone();
        let mut images: Vec<_> =
            status.vms.iter().filter(|vm| vm.state == VmState::Ready).map(|vm| image(vm.id)).collect();
        images.sort();
        images
    }
}

/// Requests to "p" without end, each of which has to be served.
fn load(world: &World) -> JoinSet<()> {
    let mut clients = JoinSet::new();
    for client in 0..4 {
        let pools = world.pools.clone();
        clients.spawn(async move {
            loop {
                let lease = pools.get("p").unwrap().lease().await.unwrap();
                sleep(ms(3 + client)).await;
                drop(lease);
            }
        });
    }
    clients
}

async fn has_failed(mut clients: JoinSet<()>) -> bool {
    settle().await;
    clients.try_join_next().is_some()
}

#[tokio::test(start_paused = true)]
async fn limits_hold_at_once_and_no_vm_is_replaced() {
    let old = of([pool("p", |pool| (pool.soft_limit, pool.hard_limit, pool.scale.max) = (1, 1, 1))]);
    let world = World::new(&old, ready());
    let first = world.lease().await;
    let waits = world.request();
    settle().await;
    assert!(!waits.is_finished(), "one at a time");
    let new = of([pool("p", |pool| (pool.soft_limit, pool.hard_limit, pool.scale.max) = (2, 3, 1))]);
    world.reload(&old, &new).await.unwrap();
    let second = waits.await.unwrap().unwrap();
    let third = world.lease().await;
    assert!([&second, &third].iter().all(|lease| lease.vm() == first.vm()));
    // And back again: who is in stays, nobody else comes in.
    world.reload(&new, &old).await.unwrap();
    drop((first, second));
    let waits = world.request();
    settle().await;
    assert!(!waits.is_finished());
    drop(third);
    waits.await.unwrap().unwrap();
    assert_eq!(world.launcher.started().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_minimum_and_a_maximum_can_be_moved() {
    let with = |min, max| of([pool("p", |pool| (pool.scale.min, pool.scale.max) = (min, max))]);
    let (small, large) = (with(0, 1), with(3, 4));
    let world = World::new(&small, ready());
    world.reload(&small, &large).await.unwrap();
    world.until(|now| now.ready == 3).await;
    world.reload(&large, &small).await.unwrap();
    world.until(|now| now.total() == 0).await;
}

#[tokio::test(start_paused = true)]
async fn who_waits_is_bounded_by_the_new_queue() {
    let with =
        |max, timeout| of([pool("p", |pool| (pool.queue.max_pending, pool.queue.timeout) = (max, timeout))]);
    let (old, new) = (with(2, LONG), with(3, ms(50)));
    let world = World::new(&old, Script::boot(Boot::Silent));
    let waiting = world.requests(2);
    settle().await;
    assert!(matches!(world.pool().lease().await, Err(LeaseError::QueueFull { .. })));
    world.reload(&old, &new).await.unwrap();
    let third = world.request();
    settle().await;
    assert!(matches!(world.pool().lease().await, Err(LeaseError::QueueFull { .. })));
    assert!(matches!(third.await.unwrap(), Err(LeaseError::TimedOut { .. })));
    assert!(waiting.iter().all(|earlier| !earlier.is_finished()), "each has the time that it came with");
}

#[tokio::test(start_paused = true)]
async fn other_machines_replace_the_vms_without_failing_a_request() {
    let with = |image: &str| of([pool("p", |pool| (pool.image, pool.scale.min) = (image.into(), 2))]);
    let (old, new) = (with("old"), with("new"));
    let world = World::new(&old, ready());
    world.until(|now| now.ready == 2).await;
    let clients = load(&world);
    world.reload(&old, &new).await.unwrap();
    sleep(LONG).await;
    assert!(!has_failed(clients).await);
    let images = world.images().await;
    assert!(images.len() >= 2 && images.iter().all(|image| image == "new"), "{images:?}");
    assert_eq!(world.pool().status().await.unwrap().revision, Revision(2));
    assert_eq!(world.pool().config().image, "new");
}

#[tokio::test(start_paused = true)]
async fn machines_that_fail_leave_the_former_ones_and_the_new_limits() {
    let with = |image: &str, max| {
        of([pool("p", |pool| (pool.image, pool.scale.min, pool.scale.max) = (image.into(), 2, max))])
    };
    let (old, new) = (with("old", 4), with("bad", 8));
    let world = World::new(&old, ready());
    world.until(|now| now.ready == 2).await;
    let panic = ExitReason::Panicked("at the disco".into());
    world.launcher.script_revision(Revision(2), Script::boot(Boot::Exits(ms(5), panic)));
    let clients = load(&world);
    world.reload(&old, &new).await.unwrap();
    sleep(LONG).await;
    assert!(!has_failed(clients).await);
    assert!(world.images().await.iter().all(|image| image == "old"));
    let config = world.pool().config();
    assert_eq!((config.image.as_str(), config.scale.max), ("old", 8));
    // What was wanted is what a restart tries again.
    world.pool().restart().await.unwrap().done().await.unwrap();
    assert!(world.images().await.iter().all(|image| image == "bad"));
}

#[tokio::test(start_paused = true)]
async fn a_configuration_that_comes_in_the_middle_of_a_replacement_has_its_own() {
    let with = |image: &str| of([pool("p", |pool| (pool.image, pool.scale.min) = (image.into(), 2))]);
    let (a, b, c) = (with("a"), with("b"), with("c"));
    let world = World::new(&a, ready());
    world.until(|now| now.ready == 2).await;
    world.reload(&a, &b).await.unwrap();
    world.reload(&b, &c).await.unwrap();
    sleep(LONG).await;
    assert_eq!(world.images().await, ["c", "c"]);
    assert_eq!(world.pool().status().await.unwrap().rollout, None);
    // Gone back to before anything was made of it: nothing is replaced in the end.
    world.launcher.prepare_next(ms(100), Err("broken".into()));
    world.reload(&c, &a).await.unwrap();
    world.reload(&a, &c).await.unwrap();
    sleep(LONG).await;
    assert_eq!(world.images().await, ["c", "c"]);
}

#[tokio::test(start_paused = true)]
async fn pools_come_and_go() {
    let p = || pool("p", |pool| pool.scale.min = 1);
    let (old, new) = (of([p()]), of([p(), pool("q", |pool| pool.scale.min = 2)]));
    let world = World::new(&old, ready());
    world.reload(&old, &new).await.unwrap();
    let q = world.pools.get("q").unwrap();
    q.instances().wait_for(|now| now.ready == 2).await.unwrap();
    assert_eq!(world.launcher.added(), ["q"]);
    let lease = q.lease().await.unwrap();
    world.reload(&new, &old).await.unwrap();
    assert!(world.pools.get("q").is_none());
    // Whoever has it can still use it, for a moment.
    drop(q.lease().await.unwrap());
    sleep(Duration::from_secs(6)).await;
    assert_eq!(q.lease().await.unwrap_err(), LeaseError::ShuttingDown);
    assert_eq!(world.launcher.alive("q"), [lease.vm()], "a request has its time");
    // One of the same name waits for it, and is another one.
    let (pools, change) = (world.pools.clone(), Change::between(&old, &new).unwrap());
    let again = tokio::spawn(async move { pools.stage(&change).await.unwrap().commit().await });
    settle().await;
    assert!(!again.is_finished());
    drop(lease);
    again.await.unwrap();
    assert_eq!(world.launcher.added(), ["q"]);
    world.pools.get("q").unwrap().instances().wait_for(|now| now.ready == 2).await.unwrap();
    assert_eq!(world.metric("weir_vm_instances{pool=\"p\",state=\"ready\"}"), 1.0);
}

#[tokio::test(start_paused = true)]
async fn a_request_of_a_removed_pool_has_half_a_minute() {
    let (old, new) = (of([fake::pool("p"), fake::pool("q")]), of([fake::pool("p")]));
    let world = World::new(&old, ready());
    let q = world.pools.get("q").unwrap();
    let lease = q.lease().await.unwrap();
    world.reload(&old, &new).await.unwrap();
    sleep(Duration::from_secs(29)).await;
    assert_eq!(world.launcher.alive("q").len(), 1);
    tokio::time::timeout(Duration::from_secs(2), lease.gone()).await.unwrap();
    sleep(ms(100)).await;
    assert!(world.launcher.alive("q").is_empty() && q.status().await.is_none());
    // Nor does it keep weir from ending.
    world.pools.drain(ms(1)).await;
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_cannot_be_added_changes_nothing() {
    let old = of([pool("p", |pool| pool.scale.max = 1)]);
    let mut new = of([
        pool("p", |pool| pool.scale.max = 9),
        fake::pool("a"),
        pool("q", |pool| pool.image = "no image".into()),
    ]);
    new.host.max_vms = 7;
    let world = World::new(&old, ready());
    world.launcher.refuse_image("no image");
    let error = world.reload(&old, &new).await.unwrap_err();
    assert_eq!(error, "add pool q");
    assert_eq!(world.pools.all().len(), 1);
    assert_eq!(world.pool().config().scale.max, 1);
    assert!(world.launcher.added().is_empty(), "what was got ready is given up");
}

#[tokio::test(start_paused = true)]
async fn the_host_may_become_larger_and_smaller() {
    let with = |max_vms| {
        let mut config = of([fake::pool("p"), fake::pool("q")]);
        config.host.max_vms = max_vms;
        config
    };
    let (small, large) = (with(1), with(3));
    let world = World::new(&small, ready());
    let mut leases = futures::future::join_all((0..4).map(|_| world.lease())).await;
    let q = world.pools.get("q").unwrap();
    let waits = tokio::spawn(async move { q.lease().await });
    settle().await;
    assert!(!waits.is_finished(), "p has all of the host");
    world.reload(&small, &large).await.unwrap();
    leases.push(waits.await.unwrap().unwrap());
    leases.push(world.lease().await);
    assert_eq!((world.alive(), world.launcher.alive("q").len()), (2, 1));
    world.reload(&large, &small).await.unwrap();
    drop(leases);
    let more = world.requests(9);
    sleep(ms(100)).await;
    assert!(world.launcher.started().len() <= 3, "no VM more");
    drop(more);
}

#[tokio::test(start_paused = true)]
async fn health_checks_follow_the_new_interval() {
    let with = |interval| of([pool("p", |pool| (pool.scale.min, pool.health.interval) = (1, interval))]);
    let (seldom, often) = (with(Duration::from_secs(3600)), with(ms(100)));
    let world = World::new(&seldom, ready());
    world.until(|now| now.ready == 1).await;
    sleep(LONG).await;
    assert_eq!(world.launcher.checked().len(), 0);
    world.reload(&seldom, &often).await.unwrap();
    sleep(Duration::from_secs(10)).await;
    assert!(world.launcher.checked().len() > 5, "{}", world.launcher.checked().len());
}
