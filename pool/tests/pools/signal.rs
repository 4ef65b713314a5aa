//! Pools that follow what their guests say. The guests' endpoints are real, so time is too.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::Duration;

use futures::future::join_all;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::timeout;
use weir_config::model::{Pool, Thousandths};
use weir_pool::Instances;
use weir_pool::fake::{self, Boot, Script};
use weir_vmm::ExitReason;

use crate::support::{Anonymous, World, ms};

/// Far beyond what any test needs.
const PATIENCE: Duration = Duration::from_secs(8);

/// What plays a guest's endpoint.
struct Endpoint {
    address: SocketAddr,
    body: Arc<Mutex<Vec<u8>>>,
    asked: Arc<AtomicU32>,
}

impl Endpoint {
    async fn new(body: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let body = Arc::new(Mutex::new(body.as_bytes().to_vec()));
        let asked = Arc::new(AtomicU32::new(0));
        let endpoint = Self { address, body: body.clone(), asked: asked.clone() };
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let head = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
                let answer = [head, body.lock().clone()].concat();
                asked.fetch_add(1, SeqCst);
                tokio::spawn(async move {
                    // Who asked may have gone.
                    let _ = stream.read(&mut [0; 1024]).await;
                    let _ = stream.write_all(&answer).await;
                });
            }
        });
        endpoint
    }

    fn say(&self, body: &str) {
        *self.body.lock() = body.as_bytes().to_vec();
    }

    fn script(&self) -> Script {
        Script::ready_after(ms(1), self.address)
    }

    /// Until it has been asked `times` times more, all the while of which `holds` does.
    async fn asked(&self, times: u32, holds: impl Fn() -> bool) {
        let until = self.asked.load(SeqCst) + times;
        let asked = async {
            while self.asked.load(SeqCst) < until {
                assert!(holds());
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, asked).await.expect("it is asked");
    }
}

/// Follows `jobs`, 10 of which are one VM's work.
fn follow(pool: &mut Pool) {
    let mut signal = fake::signal("jobs", Thousandths(10_000));
    (signal.interval, signal.timeout) = (ms(20), ms(500));
    pool.signal = Some(signal);
    pool.scale.idle_timeout = ms(10);
}

async fn until(world: &World, what: &str, condition: impl FnMut(&Instances) -> bool) {
    timeout(PATIENCE, world.until(condition)).await.unwrap_or_else(|_| panic!("never {what}"));
}

#[tokio::test]
async fn a_pool_grows_to_what_its_guests_ask_for_and_shrinks_with_it() {
    let (first, others) = (Endpoint::new("jobs 25\n").await, Endpoint::new("jobs 0\n").await);
    let world = World::one(others.script(), |pool| {
        follow(pool);
        pool.scale.max = 8;
    });
    world.launcher.script_next(first.script());
    let lease = world.lease().await;
    until(&world, "3 vms", |now| now.ready == 3).await;
    assert_eq!(world.metric(r#"weir_signal_value{pool="p"}"#), 25.0);
    first.say("jobs 39.5\n");
    until(&world, "4 vms", |now| now.ready == 4).await;
    first.say("jobs 0\n");
    until(&world, "1 vm", |now| now.total() == 1).await;
    drop(lease);
    until(&world, "none", |now| now.total() == 0).await;
    assert!(world.metric(r#"weir_signal_scrapes_total{pool="p",result="ok"}"#) > 0.0);
    assert_eq!(world.sum("weir_queue_wait_seconds_count"), 1.0, "to be asked is no request");
}

#[tokio::test]
async fn whatever_guests_say_a_pool_has_never_more_than_max() {
    let endpoint = Endpoint::new("jobs 1e308\n").await;
    let world = World::one(endpoint.script(), follow);
    let lease = world.lease().await;
    until(&world, "4 vms", |now| now.ready == 4).await;
    for lie in ["jobs 1e308\njobs 1e308\n", "jobs 18446744073709551616\n", "jobs 41\n"] {
        endpoint.say(lie);
        endpoint.asked(12, || world.alive() <= 4).await;
    }
    // None of these says anything: after a while it is as if nobody asked.
    for garbage in ["jobs NaN\n", "jobs -1e308\n", "<html>\n", "jobs +Inf\n", ""] {
        endpoint.say(garbage);
        endpoint.asked(2, || world.alive() <= 4).await;
    }
    until(&world, "what its lease needs", |now| now.total() == 1).await;
    drop(lease);
}

#[tokio::test]
async fn a_lie_leaves_other_pools_what_is_theirs() {
    let liar = Endpoint::new("jobs 1e308\n").await;
    let (mut greedy, mut modest) = (fake::pool("p"), fake::pool("q"));
    follow(&mut greedy);
    greedy.scale.max = 100;
    modest.scale.min = 2;
    let mut config = fake::config([greedy, modest]);
    config.host.max_vms = 6;
    let world = World::new(&config, liar.script());
    let lease = world.lease().await;
    until(&world, "all that is left", |now| now.ready == 4).await;
    liar.asked(12, || world.alive() <= 4 && world.launcher.alive("q").len() == 2).await;
    let other = world.pools.get("q").unwrap();
    let leases = timeout(PATIENCE, join_all((0..4).map(|_| other.lease()))).await.expect("it is served");
    assert!(leases.iter().all(Result::is_ok));
    drop(lease);
}

#[tokio::test]
async fn what_vms_told_that_are_gone_is_no_longer_shown() {
    let endpoint = Endpoint::new("jobs 7\n").await;
    let world = World::one(endpoint.script(), |pool| {
        follow(pool);
        pool.scale.max = 1;
    });
    drop(world.lease().await);
    let shown = async |value| {
        let shows = async {
            while world.metric(r#"weir_signal_value{pool="p"}"#) != value {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, shows).await.expect("it is shown");
    };
    shown(7.0).await;
    world.launcher.script_usual(Script::boot(Boot::Silent));
    world.launcher.crash(world.launcher.alive("p")[0], ExitReason::Exited(0));
    shown(0.0).await;
    assert_eq!(world.pool().instances().borrow().ready, 0);
}
