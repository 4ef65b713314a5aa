//! VMs that fail.

use std::time::Duration;

use futures::future::join_all;
use tokio::time::{Instant, sleep};
use weir_pool::fake::{Boot, Script};
use weir_pool::{LeaseError, Start};
use weir_vmm::{CrashReason, ExitReason, VmEvent};

use crate::support::{Anonymous, BOOT, World, ms, ready, settle};

fn crashes_at_boot() -> Script {
    Script::boot(Boot::Exits(ms(5), ExitReason::Panicked("no config".into())))
}

#[tokio::test(start_paused = true)]
async fn guest_that_crashes_at_boot_fails_requests_with_its_reason() {
    let world = World::one(crashes_at_boot(), |_| {});
    let begin = Instant::now();
    let failed = |reason: &str| LeaseError::StartFailed { reason: reason.into(), retry_after: ms(1000) };
    let expected = failed("application panicked: no config");
    for answer in join_all(world.requests(3)).await {
        assert_eq!(answer.unwrap().unwrap_err(), expected);
    }
    assert_eq!(Instant::now() - begin, ms(5 + 100 + 5), "the second failure in a row");
    let begin = Instant::now();
    assert_eq!(world.pool().lease().await.unwrap_err(), expected, "while backing off");
    assert_eq!(Instant::now(), begin);
    assert_eq!(world.metric(r#"weir_requests_shed_total{reason="start_failed"}"#), 4.0);

    // Once the back-off is over, a request is an attempt again.
    sleep(ms(200)).await;
    world.launcher.script_usual(ready());
    assert_eq!(world.lease().await.start(), Start::Cold);
}

#[tokio::test(start_paused = true)]
async fn back_off_grows_so_that_a_crash_loop_is_no_busy_loop_and_resets_after_success() {
    let world = World::one(crashes_at_boot(), |pool| pool.scale.min = 1);
    sleep(Duration::from_secs(60)).await;
    let starts = world.launcher.started();
    let gaps: Vec<_> = starts.windows(2).map(|pair| (pair[1].at - pair[0].at).as_millis()).collect();
    assert_eq!(gaps[..7], [105, 205, 405, 805, 1605, 3205, 6405]);
    assert!(gaps[7..].iter().all(|gap| *gap == 10_005), "{gaps:?}");
    assert_eq!(world.alive(), 0);

    world.launcher.script_next(ready());
    world.until(|now| now.ready == 1).await;
    sleep(ms(1500)).await;
    let end = Instant::now();
    world.launcher.crash(world.launcher.alive("p")[0], ExitReason::Exited(1));
    sleep(ms(150)).await;
    let after: Vec<_> = world.launcher.started().into_iter().filter(|start| start.at >= end).collect();
    assert_eq!(after.iter().map(|start| start.at - end).collect::<Vec<_>>(), [ms(0), ms(105)]);
}

#[tokio::test(start_paused = true)]
async fn guest_that_is_never_ready_is_killed() {
    let world = World::one(Script::boot(Boot::Silent), |pool| pool.start_timeout = ms(300));
    let request = world.request();
    sleep(ms(299)).await;
    assert_eq!(world.alive(), 1);
    let answer = request.await.unwrap().unwrap_err();
    assert_eq!(
        answer,
        LeaseError::StartFailed { reason: "not ready within 300ms".into(), retry_after: ms(1000) }
    );
    assert_eq!(world.alive(), 0);
    assert_eq!(world.metric(r#"weir_vm_exits_total{pool="p",reason="start_timeout"}"#), 2.0);
}

#[tokio::test(start_paused = true)]
async fn launcher_that_hangs_or_refuses_is_a_failed_start() {
    let world = World::one(ready(), |pool| pool.start_timeout = ms(300));
    world.launcher.script_next(Script::boot(Boot::Hangs));
    world.launcher.script_next(Script::boot(Boot::Refused("no kvm".into())));
    let begin = Instant::now();
    world.lease().await;
    assert_eq!(
        Instant::now() - begin,
        ms(300 + 1000 + 100 + 200) + BOOT,
        "with a grace for it to give the vm up"
    );
    assert_eq!(world.metric(r#"weir_vm_exits_total{pool="p",reason="start_timeout"}"#), 1.0);
    assert_eq!(world.metric(r#"weir_vm_exits_total{pool="p",reason="start_failed"}"#), 1.0);
}

#[tokio::test(start_paused = true)]
async fn requests_wait_for_a_host_that_fails_until_it_has_for_as_long_as_they_may() {
    let world = World::one(Script::boot(Boot::Refused("no memory".into())), |_| {});
    let begin = Instant::now();
    let patience = world.pool().config().queue.timeout;
    let early = world.request();
    sleep(patience - ms(1500)).await;
    let late = world.request();
    assert_eq!(early.await.unwrap().unwrap_err().label(), "queue_timeout");
    assert_eq!(Instant::now() - begin, patience);
    let failed = LeaseError::StartFailed { reason: "launcher: no memory".into(), retry_after: ms(1000) };
    assert_eq!(late.await.unwrap().unwrap_err(), failed);
    assert!(Instant::now() - begin <= patience + ms(1000), "{:?}", Instant::now() - begin);
    assert_eq!(world.pool().lease().await.unwrap_err(), failed, "nor does anyone after that");
    assert!(Instant::now() - begin <= patience + ms(1000), "{:?}", Instant::now() - begin);
    world.launcher.script_next(ready());
    sleep(ms(1000)).await;
    world.lease().await;
}

#[tokio::test(start_paused = true)]
async fn failed_start_spoils_nothing_for_requests_that_others_can_serve() {
    let world = World::one(crashes_at_boot(), |_| {});
    world.launcher.script_next(ready());
    let mut leases = join_all(world.requests(4)).await;
    assert!(leases.iter().all(|lease| lease.as_ref().unwrap().is_ok()), "two VMs ordered, one failed");
    let waiting = world.request();
    sleep(Duration::from_secs(2)).await;
    assert!(!waiting.is_finished(), "starts fail, but a VM is there");
    leases.pop();
    assert_eq!(waiting.await.unwrap().unwrap().start(), Start::Warm);
}

#[tokio::test(start_paused = true)]
async fn lease_tells_of_its_vm_s_end_and_not_of_another_s() {
    let world = World::one(ready(), |_| {});
    let lease = world.lease().await;
    let gone = tokio::spawn(lease.gone());
    settle().await;
    assert!(!gone.is_finished());
    world.launcher.crash(lease.vm(), ExitReason::Died("signal 9".into()));
    gone.await.unwrap();
    // Late is not never.
    lease.gone().await;
}

#[tokio::test(start_paused = true)]
async fn crashed_vm_gets_no_more_requests_and_the_next_lease_a_replacement() {
    let world = World::one(ready(), |_| {});
    let first = world.lease().await;
    sleep(ms(1500)).await;
    world.launcher.crash(first.vm(), ExitReason::Crashed(CrashReason::TripleFault));
    settle().await;
    let second = world.lease().await;
    assert_ne!(second.vm(), first.vm());
    assert_eq!(
        (second.start(), second.queued()),
        (Start::Cold, BOOT),
        "no back-off after a READY that lasted"
    );
    assert_eq!(world.metric(r#"weir_vm_exits_total{pool="p",reason="triple_fault"}"#), 1.0);
    drop(first);
    assert_eq!(world.alive(), 1);
}

#[tokio::test(start_paused = true)]
async fn suspect_vm_is_not_chosen_again_and_goes_after_its_last_lease() {
    let world = World::one(ready(), |_| {});
    let (first, other) = (world.lease().await, world.lease().await);
    assert_eq!(first.vm(), other.vm());
    sleep(ms(1500)).await;
    first.suspect();
    other.suspect();
    let next = world.lease().await;
    assert_ne!(next.vm(), first.vm());
    drop(first);
    sleep(ms(1000)).await;
    assert_eq!(world.alive(), 2, "a lease still uses it");
    let suspect = other.vm();
    drop(other);
    settle().await;
    assert_eq!(world.launcher.alive("p"), [next.vm()]);
    assert_ne!(suspect, next.vm());
}

#[tokio::test(start_paused = true)]
async fn vms_that_refuse_their_first_requests_back_off() {
    let world = World::one(ready(), |_| {});
    world.lease().await.suspect();
    let begin = Instant::now();
    world.lease().await.suspect();
    assert_eq!(Instant::now() - begin, ms(100) + BOOT);
    let begin = Instant::now();
    world.lease().await;
    assert_eq!(Instant::now() - begin, ms(200) + BOOT, "but are tried again: they were READY");
}

#[tokio::test(start_paused = true)]
async fn chatter_changes_nothing() {
    let world = World::one(ready(), |_| {});
    let lease = world.lease().await;
    for event in [VmEvent::Ready, VmEvent::Log("line\x1b[2J".into()), VmEvent::Ready] {
        world.launcher.say(lease.vm(), event);
    }
    settle().await;
    assert_eq!(world.lease().await.vm(), lease.vm());
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_one_vms_task_costs_the_pool_nothing_but_that_vm() {
    let world = World::one(ready(), |pool| pool.scale.max = 1);
    world.launcher.script_next(Script::boot(Boot::Panics));
    let lease = world.lease().await;
    assert_eq!((world.launcher.started().len(), lease.queued()), (2, ms(100) + BOOT));
    drop(lease);
    world.pools.drain(Duration::from_secs(60)).await;
    assert_eq!(world.pool().instances().borrow().total(), 0);
}
