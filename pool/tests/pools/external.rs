//! Names of servers outside: who joins, who leaves, and that nobody notices.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt, ready};
use prometheus::{Registry, TextEncoder};
use tokio::net::{TcpListener, TcpStream};
use weir_config::model::{External, Kind, ServerAddress};
use weir_pool::fake::{self, FakeLauncher};
use weir_pool::{Below, Network, OwnNetwork, Pool, PoolMetrics, Pools};

use crate::support::{Anonymous, ready as ready_vm};

/// A network in which every name has these addresses; none: it is not found.
#[derive(Clone, Debug, Default)]
struct Zone(Arc<Mutex<Vec<SocketAddr>>>);

impl Network for Zone {
    fn connect(&self, address: SocketAddr) -> BoxFuture<'static, io::Result<TcpStream>> {
        OwnNetwork.connect(address)
    }

    fn resolve(&self, _: &str, _: u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
        let found = self.0.lock().unwrap().clone();
        let answer = if found.is_empty() { Err(io::ErrorKind::NotFound.into()) } else { Ok(found) };
        ready(answer).boxed()
    }
}

impl Zone {
    fn set(&self, servers: &[&TcpListener]) {
        *self.0.lock().unwrap() = servers.iter().map(|server| address(server)).collect();
    }
}

/// A server that takes connections and says nothing.
async fn server() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

fn address(server: &TcpListener) -> SocketAddr {
    server.local_addr().unwrap()
}

/// One pool of what `zone` has, looked up every 10 ms.
fn pools(zone: &Zone) -> (Pools, Registry) {
    let mut pool = fake::pool("p");
    let name = ServerAddress::Name { name: "legacy.internal".to_owned(), port: 80 };
    pool.kind = Kind::External(External { addresses: vec![name], resolve: Duration::from_millis(10) });
    pool.health.interval = Duration::from_millis(160);
    let below = Below { launcher: FakeLauncher::new(ready_vm()), outside: Arc::new(zone.clone()) };
    let registry = Registry::new();
    let metrics = PoolMetrics::register(&registry).unwrap();
    (Pools::start(&fake::config([pool]), below, metrics).unwrap(), registry)
}

fn lookups(registry: &Registry, result: &str) -> f64 {
    let text = TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
    let series = format!(r#"weir_upstream_lookups_total{{pool="p",result="{result}"}} "#);
    text.lines().find_map(|line| line.strip_prefix(&series)?.parse().ok()).unwrap_or(0.0)
}

/// Leases servers until it has been each of these, and no other from the first of them on.
async fn until_served_by(pool: &Pool, servers: &[&TcpListener]) {
    let wanted: BTreeSet<_> = servers.iter().map(|server| address(server)).collect();
    let mut seen = BTreeSet::new();
    let all = async {
        while seen != wanted {
            let lease = pool.lease().await.unwrap();
            if wanted.contains(&lease.address()) {
                seen.insert(lease.address());
            } else {
                seen.clear();
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(8), all).await.expect("the servers that the name has");
}

#[tokio::test]
async fn servers_join_and_leave_with_their_name_and_no_request_fails() {
    let (one, two, zone) = (server().await, server().await, Zone::default());
    let (pools, registry) = pools(&zone);
    let pool = pools.get("p").unwrap();
    let early = tokio::spawn({
        let pool = pool.clone();
        async move { pool.lease().await.unwrap().address() }
    });
    zone.set(&[&one]);
    assert_eq!(early.await.unwrap(), address(&one), "who came before there was any has waited");
    zone.set(&[&one, &two]);
    until_served_by(&pool, &[&one, &two]).await;

    let lease = loop {
        let lease = pool.lease().await.unwrap();
        if lease.address() == address(&one) {
            break lease;
        }
    };
    let gone = tokio::spawn(lease.gone());
    zone.set(&[&two]);
    let mut instances = pool.instances();
    instances.wait_for(|now| (now.ready, now.draining) == (1, 1)).await.unwrap();
    for _ in 0..20 {
        assert_eq!(pool.lease().await.unwrap().address(), address(&two));
    }
    assert!(!gone.is_finished(), "it still has a request");
    drop(lease);
    gone.await.unwrap();
    instances.wait_for(|now| (now.ready, now.draining) == (1, 0)).await.unwrap();

    // Not found any more, which is found out several times.
    let failed = || lookups(&registry, "failed");
    zone.set(&[]);
    let before = failed();
    while failed() < before + 3.0 {
        tokio::task::yield_now().await;
    }
    let status = pool.status().await.unwrap();
    let of_two: Vec<_> = status.vms.iter().map(|vm| vm.address).collect();
    assert_eq!(of_two, [Some(address(&two))]);
    until_served_by(&pool, &[&two]).await;
    zone.set(&[&one]);
    until_served_by(&pool, &[&one]).await;
}

#[tokio::test]
async fn a_server_that_comes_back_while_it_leaves_is_the_same_one() {
    let (one, zone) = (server().await, Zone::default());
    zone.set(&[&one]);
    let (pools, _) = pools(&zone);
    let pool = pools.get("p").unwrap();
    let lease = pool.lease().await.unwrap();
    let two = server().await;
    zone.set(&[&two]);
    let mut instances = pool.instances();
    instances.wait_for(|now| (now.ready, now.draining) == (1, 1)).await.unwrap();
    zone.set(&[&one, &two]);
    instances.wait_for(|now| (now.ready, now.draining) == (2, 0)).await.unwrap();
    let status = pool.status().await.unwrap();
    let same = status.vms.iter().find(|vm| vm.id == lease.vm()).expect("it has kept its identity");
    assert_eq!((same.in_flight, same.state.label()), (1, "ready"), "and the requests that it has count");
}
