//! Restarts and drains of a pool.

use std::time::Duration;

use futures::future::join_all;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use weir_pool::fake::{self, Boot, Script};
use weir_pool::{Prepared, Replaced, RestartError, Revision, VmState};
use weir_vmm::{ExitReason, VmId};

use crate::support::{Anonymous, BOOT, World, ms, ready, settle};

const SECOND: Revision = Revision(2);
const LONG: Duration = Duration::from_secs(60);

fn panic() -> ExitReason {
    ExitReason::Panicked("at the disco".into())
}

/// A pool of so many VMs that never go by themselves.
async fn of(count: u32, max: u32) -> World {
    // That one ends takes a moment, so that it can be seen.
    let script = Script { stop: Some(ms(5)), ..ready() };
    let world = World::one(script, |pool| {
        (pool.scale.min, pool.scale.max, pool.queue.max_pending) = (count, max, 100);
    });
    world.until(|now| now.ready == count).await;
    world
}

impl World {
    async fn restart(&self) -> Result<Replaced, RestartError> {
        self.pool().restart().await?.done().await
    }

    /// Of which revisions there are how many VMs that take requests.
    async fn ready_of(&self, revision: Revision) -> usize {
        let status = self.pool().status().await.unwrap();
        let ready = status.vms.iter().filter(|vm| vm.state == VmState::Ready && vm.revision == revision);
        ready.count()
    }

    fn rollouts(&self, result: &str) -> f64 {
        self.metric(&format!("weir_rollouts_total{{pool=\"p\",result=\"{result}\"}}"))
    }
}

#[tokio::test(start_paused = true)]
async fn a_restart_replaces_all_vms_without_a_gap() {
    let world = of(8, 64).await;
    let mut instances = world.pool().instances();
    let pool = world.pool().clone();
    let restarting = tokio::spawn(async move { pool.restart().await.unwrap().done().await });
    let (mut fewest, mut most) = (8, 8);
    while !restarting.is_finished() {
        tokio::select! {
            _ = instances.changed() => {}
            () = sleep(LONG) => panic!("it hangs"),
        }
        let now = *instances.borrow_and_update();
        (fewest, most) = (fewest.min(now.ready), most.max(now.ready + now.starting));
    }
    let replaced = restarting.await.unwrap().unwrap();
    assert_eq!(replaced, Replaced { revision: SECOND, image_changed: false, vms: 8 });
    assert_eq!((fewest, most), (8, 10), "a quarter more, and never less");
    assert_eq!(world.ready_of(SECOND).await, 8);
    assert_eq!((world.rollouts("done"), world.launcher.settled()), (1.0, vec![SECOND]));
}

#[tokio::test(start_paused = true)]
async fn requests_under_way_run_on_and_new_ones_are_served() {
    let world = of(2, 4).await;
    let lease = world.lease().await;
    world.restart().await.unwrap();
    sleep(LONG).await;
    assert!(world.launcher.alive("p").contains(&lease.vm()), "a lease is not cut, nor waited for");
    assert_eq!(world.ready_of(SECOND).await, 2);
    assert_ne!(world.lease().await.vm(), lease.vm());
    let vm = lease.vm();
    drop(lease);
    sleep(ms(10)).await;
    assert!(!world.launcher.alive("p").contains(&vm));
}

#[tokio::test(start_paused = true)]
async fn a_pool_at_its_maximum_is_replaced_one_by_one_under_load() {
    let world = of(2, 2).await;
    let load = (0..8).map(|client| {
        let pool = world.pool().clone();
        tokio::spawn(async move {
            for request in 0..200u64 {
                let lease = pool.lease().await.unwrap();
                sleep(ms((client + request) % 40)).await;
                drop(lease);
            }
        })
    });
    let load = join_all(load.collect::<Vec<_>>());
    let (replaced, load) = tokio::join!(world.restart(), load);
    assert_eq!(replaced.unwrap().vms, 2);
    assert!(load.into_iter().all(|client| client.is_ok()), "no request fails");
    assert_eq!((world.ready_of(SECOND).await, world.alive()), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_made_replaces_nothing() {
    let world = of(2, 4).await;
    let before = world.launcher.alive("p");
    world.launcher.prepare_next(ms(300), Err("\"/a\u{1b}\" is no guest image".into()));
    let reason = "image \"/a\\u{1b}\" is no guest image".to_owned();
    assert_eq!(world.restart().await, Err(RestartError::Failed { reason }));
    assert_eq!((world.launcher.alive("p"), world.rollouts("failed")), (before, 1.0));
    assert_eq!(world.pool().status().await.unwrap().revision, Revision::FIRST);
    world.restart().await.unwrap();
    assert_eq!(world.ready_of(Revision(3)).await, 2);
}

/// What a restart to VMs that do so ends in; afterwards there are as many of the first revision as before.
async fn rolled_back(count: u32, max: u32, script: Script) -> String {
    let world = of(count, max).await;
    world.launcher.prepare_next(ms(10), Ok(Prepared { image_changed: true }));
    world.launcher.script_revision(SECOND, script);
    let begin = Instant::now();
    let Err(RestartError::RolledBack { reason }) = world.restart().await else { panic!("it was not") };
    assert!(Instant::now() - begin < ms(7000));
    assert_eq!(world.ready_of(Revision::FIRST).await, count as usize);
    settle().await;
    assert_eq!(world.alive(), count as usize);
    assert_eq!((world.rollouts("rolled_back"), world.launcher.settled()), (1.0, vec![Revision::FIRST]));
    let tried = world.launcher.started().iter().filter(|vm| vm.revision == SECOND).count();
    assert!(tried <= (count as usize).div_ceil(4), "{tried} of {count} at once");
    reason
}

#[tokio::test(start_paused = true)]
async fn new_vms_that_do_not_come_up_are_rolled_back() {
    for (count, max) in [(8, 64), (3, 3), (1, 1)] {
        let exits = Script::boot(Boot::Exits(ms(5), panic()));
        assert!(rolled_back(count, max, exits).await.contains("disco"));
        let reason = rolled_back(count, max, Script::boot(Boot::Silent)).await;
        assert_eq!(reason, "not ready within 5s");
    }
}

#[tokio::test(start_paused = true)]
async fn new_vms_that_do_not_last_are_rolled_back() {
    for (count, max) in [(8, 64), (2, 2)] {
        let world = of(count, max).await;
        world.launcher.script_revision(SECOND, Script::boot(Boot::Ready(BOOT)));
        let restarting = world.pool().restart().await.unwrap();
        let first = until_started(&world, SECOND).await;
        sleep(ms(900)).await;
        world.launcher.crash(first, panic());
        let Err(RestartError::RolledBack { reason }) = restarting.done().await else { panic!("it was not") };
        assert!(reason.contains("disco"), "{reason}");
        assert_eq!(world.ready_of(Revision::FIRST).await, count as usize);
        assert_eq!(world.ready_of(SECOND).await, 0);
    }
}

async fn until_started(world: &World, revision: Revision) -> VmId {
    loop {
        if let Some(started) = world.launcher.started().iter().find(|vm| vm.revision == revision) {
            return started.id;
        }
        sleep(ms(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn one_vm_that_fails_after_the_others_have_lasted_does_not_end_a_restart() {
    let world = of(8, 64).await;
    let restarting = world.pool().restart().await.unwrap();
    world.until(|now| now.draining + now.stopping > 0).await;
    world.launcher.script_next(Script::boot(Boot::Exits(BOOT, panic())));
    assert_eq!(restarting.done().await.unwrap().vms, 8);
    assert_eq!(world.sum("weir_vm_exits_total{pool=\"p\",reason=\"panic\"}"), 1.0);
    assert_eq!(world.ready_of(SECOND).await, 8);
}

#[tokio::test(start_paused = true)]
async fn a_host_that_starts_nothing_for_a_moment_is_not_the_new_revisions_fault() {
    let world = of(2, 4).await;
    world.launcher.script_next(Script::boot(Boot::Refused("no more memory".into())));
    assert_eq!(world.restart().await.unwrap().vms, 2);
    assert_eq!(world.ready_of(SECOND).await, 2);
}

#[tokio::test(start_paused = true)]
async fn a_host_that_starts_nothing_any_more_ends_a_restart() {
    let world = of(2, 4).await;
    world.launcher.script_usual(Script::boot(Boot::Refused("no more memory".into())));
    let Err(RestartError::RolledBack { reason }) = world.restart().await else { panic!("it was not") };
    assert!(reason.contains("no more memory"), "{reason}");
    assert_eq!(world.ready_of(Revision::FIRST).await, 2, "they still run");
}

#[tokio::test(start_paused = true)]
async fn there_is_one_restart_at_a_time() {
    let world = of(1, 4).await;
    world.launcher.prepare_next(ms(300), Ok(Prepared { image_changed: true }));
    let first = world.pool().restart().await.unwrap();
    assert_eq!(world.pool().status().await.unwrap().rollout, Some("preparing"));
    assert_eq!(world.pool().restart().await.unwrap_err(), RestartError::InProgress);
    sleep(ms(320)).await;
    assert_eq!(world.pool().status().await.unwrap().rollout, Some("rolling"));
    assert_eq!(world.restart().await, Err(RestartError::InProgress));
    assert!(first.done().await.unwrap().image_changed);
    assert_eq!(world.pool().status().await.unwrap().rollout, None);
    // It goes on when nobody waits.
    drop(world.pool().restart().await.unwrap());
    sleep(LONG).await;
    assert_eq!(world.ready_of(Revision(3)).await, 1);
}

#[tokio::test(start_paused = true)]
async fn a_restart_of_an_empty_pool_takes_what_was_made() {
    let world = World::one(ready(), |_| {});
    assert_eq!(world.restart().await.unwrap().vms, 0);
    drop(world.lease().await);
    assert_eq!(world.ready_of(SECOND).await, 1);
}

#[tokio::test(start_paused = true)]
async fn the_end_ends_a_restart() {
    let world = of(2, 4).await;
    world.launcher.prepare_next(LONG, Ok(Prepared { image_changed: true }));
    let preparing = world.pool().restart().await.unwrap();
    world.pools.drain(ms(100)).await;
    assert_eq!(preparing.done().await, Err(RestartError::ShuttingDown));
    assert_eq!(world.restart().await, Err(RestartError::ShuttingDown));
    assert!(world.pool().status().await.is_none() && world.pool().drain().await.is_none());
    assert_eq!(world.alive(), 0);
}

#[tokio::test(start_paused = true)]
async fn vms_that_nothing_needs_are_replaced_all_the_same_and_go_afterwards() {
    let world = World::one(ready(), |pool| pool.scale.idle_timeout = ms(500));
    let leases = join_all((0..8).map(|_| world.lease())).await;
    drop(leases);
    assert_eq!(world.alive(), 4);
    let restarting = world.pool().restart().await.unwrap();
    assert_eq!(restarting.done().await.unwrap().vms, 4);
    sleep(LONG).await;
    assert_eq!(world.alive(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_drain_takes_out_all_vms_after_their_requests_and_requests_wake_new_ones() {
    let world = World::one(ready(), |_| {});
    let leases = join_all((0..3).map(|_| world.lease())).await;
    let before = world.launcher.alive("p");
    assert_eq!(before.len(), 2);
    let draining = world.pool().drain().await.unwrap();
    assert_eq!(draining.vms, 2);
    let mut done = tokio::spawn(draining.done());
    let new = world.lease().await;
    assert!(!before.contains(&new.vm()), "requests go to others");
    sleep(LONG).await;
    assert!(
        !done.is_finished() && leases.iter().all(|lease| world.launcher.alive("p").contains(&lease.vm()))
    );
    drop(leases);
    (&mut done).await.unwrap();
    assert_eq!(world.launcher.alive("p"), [new.vm()]);
    assert_eq!(world.sum("weir_rollouts_total"), 0.0);
}

#[tokio::test(start_paused = true)]
async fn a_drained_pool_keeps_its_minimum() {
    let world = of(2, 2).await;
    world.pool().drain().await.unwrap().done().await;
    world.until(|now| now.ready == 2).await;
    assert_eq!(world.launcher.started().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_is_drained_in_the_middle_of_a_restart_gets_through_it() {
    let world = of(4, 8).await;
    let restarting = world.pool().restart().await.unwrap();
    world.until(|now| now.draining + now.stopping > 0).await;
    world.pool().drain().await.unwrap().done().await;
    restarting.done().await.unwrap();
    assert_eq!(world.ready_of(SECOND).await, 4);
}

#[tokio::test(start_paused = true)]
async fn a_restart_that_meets_a_bug_fails_and_the_next_one_does_not() {
    let world = of(1, 4).await;
    world.launcher.prepare_next_panics();
    let reason = "its preparation panicked".to_owned();
    assert_eq!(timeout(LONG, world.restart()).await.unwrap(), Err(RestartError::Failed { reason }));
    world.restart().await.unwrap();
}

/// Requests of one client after the other, each of which takes so long, until it is dropped.
fn load(world: &World, pool: &str, takes: Duration) -> JoinSet<()> {
    let pool = world.pools.get(pool).unwrap().clone();
    let mut client = JoinSet::new();
    client.spawn(async move {
        loop {
            let lease = pool.lease().await.unwrap();
            sleep(takes).await;
            drop(lease);
        }
    });
    client
}

/// Pool "p" is restarted, with so many clients of its own, while "q" wants all of the host.
async fn restart_beside_a_hungry_pool(own: usize) {
    let pools = ["p", "q"].map(|name| {
        let mut pool = fake::pool(name);
        (pool.soft_limit, pool.hard_limit) = (1, 1);
        (pool.scale.max, pool.queue.max_pending, pool.queue.timeout) = (8, 100, LONG * 60);
        pool
    });
    let mut config = fake::config(pools);
    config.host.max_vms = 4;
    let world = World::new(&config, ready());
    drop(join_all(world.requests(4)).await);
    let _own: Vec<_> = (0..own).map(|_| load(&world, "p", ms(100))).collect();
    let _others: Vec<_> = (0..8).map(|_| load(&world, "q", ms(100))).collect();
    let restarted = timeout(LONG, world.restart()).await.expect("it ends").unwrap();
    assert_eq!(restarted.revision, SECOND);
    sleep(LONG).await;
    assert_eq!(world.ready_of(SECOND).await, own.min(2), "its share, as far as it has a use for it");
    assert_eq!(world.launcher.alive("q").len(), 4 - own.min(2));
}

#[tokio::test(start_paused = true)]
async fn a_restart_ends_though_others_take_the_room_that_it_makes() {
    for own in [0, 1, 2, 4] {
        restart_beside_a_hungry_pool(own).await;
    }
}
