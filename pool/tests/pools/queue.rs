//! Who waits, for how long, and who goes first.

use std::net::IpAddr;
use std::time::Duration;

use futures::future::join_all;
use tokio::time::{Instant, advance, sleep};
use weir_config::model::Overflow;
use weir_pool::fake::{Boot, Script};
use weir_pool::{Caller, LeaseError, Start};

use crate::support::{Anonymous, BOOT, World, ms, ready, settle};

fn one_vm(pool: &mut weir_config::model::Pool) {
    pool.scale.max = 1;
}

#[tokio::test(start_paused = true)]
async fn one_ready_releases_all_that_fit_and_no_more_in_their_order() {
    let world = World::one(ready(), one_vm);
    let mut requests = Vec::new();
    for _ in 0..6 {
        requests.push(world.request());
        settle().await;
    }
    assert_eq!(world.pool().queued(), 6);
    assert_eq!(world.metric(r#"weir_queue_depth{class="default",pool="p"}"#), 6.0);
    let rest = requests.split_off(4);
    let mut leases: Vec<_> = join_all(requests).await.into_iter().map(|l| l.unwrap().unwrap()).collect();
    settle().await;
    assert_eq!(world.pool().queued(), 2, "hard limit 4");
    assert!(rest.iter().all(|request| !request.is_finished()));

    // A lease's end is the next one's beginning, without any time passing.
    let now = Instant::now();
    leases.pop();
    settle().await;
    assert_eq!(rest.iter().map(|request| request.is_finished()).collect::<Vec<_>>(), [true, false]);
    leases.pop();
    for request in rest {
        assert_eq!(request.await.unwrap().unwrap().start(), Start::Cold);
    }
    assert_eq!(Instant::now(), now);
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_room_in_a_warm_vm_is_warm() {
    let world = World::one(ready(), one_vm);
    let mut leases = join_all(world.requests(4)).await;
    let waiting = world.request();
    settle().await;
    advance(ms(70)).await;
    leases.pop();
    let lease = waiting.await.unwrap().unwrap();
    assert_eq!((lease.start(), lease.queued()), (Start::Warm, ms(70)));
}

#[tokio::test(start_paused = true)]
async fn full_queue_refuses_at_once() {
    let world = World::one(Script::boot(Boot::Silent), one_vm);
    let waiting = world.requests(8);
    settle().await;
    let now = Instant::now();
    let refused = world.pool().lease().await.unwrap_err();
    assert_eq!(refused, LeaseError::QueueFull { retry_after: ms(5000) });
    assert_eq!(Instant::now(), now);
    assert_eq!(world.metric(r#"weir_requests_shed_total{reason="queue_full"}"#), 1.0);
    assert!(waiting.iter().all(|request| !request.is_finished()));
}

#[tokio::test(start_paused = true)]
async fn deadline_ends_the_wait_and_frees_the_place() {
    let world = World::one(ready(), |pool| {
        one_vm(pool);
        pool.queue.timeout = ms(1500);
        pool.queue.max_pending = 1;
    });
    let _leases = join_all(world.requests(1)).await;
    let _more = [world.lease().await, world.lease().await, world.lease().await];
    let begin = Instant::now();
    assert_eq!(world.pool().lease().await.unwrap_err(), LeaseError::TimedOut { retry_after: ms(1000) });
    assert_eq!(Instant::now() - begin, ms(1500));
    assert_eq!(
        (world.pool().queued(), world.metric(r#"weir_queue_depth{class="default",pool="p"}"#)),
        (0, 0.0)
    );
    assert_eq!(world.metric(r#"weir_requests_shed_total{reason="queue_timeout"}"#), 1.0);
    assert_eq!(world.metric(r#"weir_queue_wait_seconds_count{pool="p"}"#), 2.0, "the wait in vain counts");
    assert_eq!(world.metric(r#"weir_queue_wait_seconds_sum{pool="p"}"#), 1.51);
    assert!(matches!(world.pool().lease().await, Err(LeaseError::TimedOut { .. })), "not full");
}

#[tokio::test(start_paused = true)]
async fn who_gives_up_leaves_the_queue_at_once_and_costs_nobody_a_turn() {
    let world = World::one(ready(), |pool| {
        one_vm(pool);
        pool.hard_limit = 1;
        pool.soft_limit = 1;
    });
    let lease = world.lease().await;
    let (quitter, next) = (world.request(), world.request());
    settle().await;
    assert_eq!(world.pool().queued(), 2);
    quitter.abort();
    assert!(quitter.await.unwrap_err().is_cancelled());
    assert_eq!(world.pool().queued(), 1);
    drop(lease);
    drop(next.await.unwrap().unwrap());

    // Given a lease and gone before it could look at it: the lease goes on to the next.
    let lease = world.lease().await;
    let pool = world.pool();
    let mut quitter = Box::pin(pool.lease());
    assert!(futures::poll!(&mut quitter).is_pending());
    let next = world.request();
    settle().await;
    drop(lease);
    assert_eq!(world.pool().queued(), 1);
    drop(quitter);
    next.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn hard_limit_holds_and_nobody_is_forgotten_under_real_concurrency() {
    use std::collections::HashMap;
    use std::sync::{Arc, Mutex};

    let world = World::one(ready(), |pool| {
        pool.scale.max = 2;
        pool.queue.max_pending = 1000;
    });
    let inside = Arc::new(Mutex::new(HashMap::new()));
    let requests = (0..64).map(|_| {
        let (pool, inside) = (world.pool().clone(), inside.clone());
        tokio::spawn(async move {
            let mut peak = 0;
            for _ in 0..200 {
                let lease = pool.lease().await.unwrap();
                let now = *inside.lock().unwrap().entry(lease.vm()).and_modify(|n| *n += 1).or_insert(1);
                peak = peak.max(now);
                tokio::task::yield_now().await;
                *inside.lock().unwrap().get_mut(&lease.vm()).unwrap() -= 1;
            }
            peak
        })
    });
    let peaks = join_all(requests).await;
    assert!(peaks.into_iter().all(|peak| peak.unwrap() <= 4));
    assert_eq!(world.pool().queued(), 0);
}

/// Somebody with this address.
fn of(address: &str) -> Caller {
    Caller { client: address.parse::<IpAddr>().unwrap().into(), ..Caller::anonymous() }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_floods_does_not_delay_another_by_more_than_its_share() {
    const FLOOD: usize = 10_000;
    let world = World::one(ready(), |pool| {
        (pool.soft_limit, pool.hard_limit, pool.scale.max) = (1, 1, 1);
        (pool.queue.max_pending, pool.queue.timeout) = (1000, Duration::from_secs(3600));
    });
    let pool = world.pool().clone();
    let work = |caller: Caller| {
        let pool = pool.clone();
        async move {
            let lease = pool.lease_for(&caller).await?;
            sleep(ms(10)).await;
            drop(lease);
            Ok::<_, LeaseError>(())
        }
    };
    let flood: Vec<_> = (0..FLOOD).map(|_| tokio::spawn(work(of("192.0.2.1")))).collect();
    settle().await;
    assert_eq!(pool.queued(), 1000, "it has filled the queue");
    let begin = Instant::now();
    for _ in 0..20 {
        work(of("192.0.2.2")).await.unwrap();
    }
    // Each of its requests waits for the one in service, and for one of the flood's.
    let took = Instant::now() - begin;
    assert!(took <= BOOT + ms(20 * 3 * 10), "{took:?}");
    let refused = world.metric(r#"weir_requests_shed_total{reason="queue_full"}"#);
    assert!(refused >= (FLOOD - 1001) as f64, "{refused}");
    for request in flood {
        request.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn what_may_not_wait_is_refused_at_once_and_wakes_the_pool() {
    let world = World::one(ready(), |pool| {
        (pool.soft_limit, pool.hard_limit, pool.scale.max) = (1, 1, 1);
        pool.queue.overflow = Overflow::Reject;
    });
    let error = world.pool().lease().await.unwrap_err();
    assert_eq!(error.label(), "no_room");
    world.until(|now| now.ready == 1).await;
    let lease = world.lease().await;
    assert_eq!((lease.start(), lease.queued()), (Start::Warm, Duration::ZERO));
    assert_eq!(world.pool().lease().await.unwrap_err().label(), "no_room");
    drop(lease);
    world.lease().await;
    assert_eq!(world.metric(r#"weir_requests_shed_total{reason="no_room"}"#), 2.0);
}
