//! What a bug in one request's task does to others, and what HTTP/2's requests on one connection have in common.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use prometheus::Registry;
use weir_config::model::Isolation;
use weir_pool::PoolMetrics;
use weir_pool::fake::{FakeLauncher, Script};

use super::*;
use crate::testing::{PANIC, config};

/// Answers one request per connection, with its own number and that of the requests before it since the VM's last reset.
fn counting_backend(number: usize, resets: Arc<AtomicU32>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let (mut generation, mut before) = (0, 0);
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            if stream.read(&mut [0; 4096]).unwrap_or(0) == 0 {
                continue;
            }
            if std::mem::replace(&mut generation, resets.load(SeqCst)) != generation {
                before = 0;
            }
            // Whoever has gone needs no answer.
            let _ =
                write!(stream, "HTTP/1.1 200 OK\r\nconnection: close\r\nx-seen: {number} {before}\r\n\r\n");
            before += 1;
        }
    });
    address
}

/// Answers one request per connection.
fn backend() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            // A connection that was made for a request that panicked ends without one.
            if stream.read(&mut [0; 4096]).unwrap_or(0) > 0 {
                stream.write_all(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n").unwrap();
            }
        }
    });
    address
}

/// What comes back until the connection ends.
fn ask(address: SocketAddr, header: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(9))).unwrap();
    write!(stream, "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n{header}\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// A site of VMs that serve one tenancy at a time, and what ends it.
fn isolated(isolation: Isolation, vms: usize) -> (SocketAddr, Arc<FakeLauncher>, watch::Sender<bool>) {
    let mut config = config();
    config.listeners[0].http2 = true;
    let pool = Arc::get_mut(config.pools.get_mut("p").unwrap()).unwrap();
    pool.isolation = isolation;
    (pool.hard_limit, pool.soft_limit, pool.scale.max) = (1, 1, u32::try_from(vms).unwrap());
    pool.queue.max_pending = 1000;
    let listeners = crate::bind(&config).unwrap();
    let address = listeners.addresses().unwrap()[0].ip().unwrap();
    let scripts: Vec<_> = (0..vms)
        .map(|number| {
            let resets = Arc::<AtomicU32>::default();
            let address = counting_backend(number, Arc::clone(&resets));
            Script { resets, ..Script::ready_after(Duration::ZERO, address) }
        })
        .collect();
    let launcher = FakeLauncher::new(scripts[0].clone());
    scripts.into_iter().for_each(|script| launcher.script_next(script));
    let registry = Registry::new();
    let pools = Pools::start(&config, launcher.clone(), PoolMetrics::register(&registry).unwrap()).unwrap();
    let server = Server {
        config: Arc::new(config),
        listeners,
        pools,
        metrics: Metrics::register(&registry).unwrap(),
        access_log: AccessLog::disabled(),
        spans: None,
        challenges: Challenges::default(),
        timeouts: Timeouts::default(),
    };
    let (shutdown, stop) = watch::channel(false);
    tokio::spawn(serve(server, stop));
    (address, launcher, shutdown)
}

/// A client's HTTP/2 connection.
struct Http2 {
    requests: h2::client::SendRequest<Bytes>,
    connection: tokio::task::JoinHandle<()>,
}

impl Http2 {
    async fn connect(address: SocketAddr) -> Self {
        let socket = tokio::net::TcpStream::connect(address).await.unwrap();
        let (requests, connection) = h2::client::handshake(socket).await.unwrap();
        // How it ends is the test's doing.
        let connection = tokio::spawn(async move { drop(connection.await) });
        Self { requests, connection }
    }

    /// The VM's number and the requests that it had seen, of requests sent at the same time.
    async fn ask(&self, count: usize) -> Vec<(usize, usize)> {
        let seen = (0..count).map(|_| async {
            let mut requests = self.requests.clone().ready().await.unwrap();
            let request = http::Request::get("http://a.example/").body(()).unwrap();
            let response = requests.send_request(request, true).unwrap().0.await.unwrap();
            assert_eq!(response.status(), 200);
            let seen = response.headers()["x-seen"].to_str().unwrap().to_owned();
            // To its end, or the stream is reset.
            let mut body = response.into_body();
            while body.data().await.is_some() {}
            let (number, before) = seen.split_once(' ').unwrap();
            (number.parse().unwrap(), before.parse().unwrap())
        });
        tokio::time::timeout(Duration::from_secs(9), join_all(seen)).await.unwrap()
    }

    async fn close(self) {
        self.connection.abort();
        let _ = self.connection.await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_of_one_connection_share_its_vm_and_other_connections_do_not() {
    let (address, launcher, _serving) = isolated(Isolation::Connection, 2);
    let (one, other) = (Http2::connect(address).await, Http2::connect(address).await);
    let (mut first, others) = tokio::join!(one.ask(6), other.ask(6));
    first.extend(one.ask(6).await);
    let vms = |seen: &[(usize, usize)]| seen.iter().map(|(vm, _)| *vm).collect::<BTreeSet<_>>();
    assert_eq!((vms(&first).len(), vms(&others).len()), (1, 1));
    assert_ne!(vms(&first), vms(&others));
    let counts: BTreeSet<_> = first.iter().map(|(_, before)| *before).collect();
    assert_eq!(counts, (0..12).collect(), "one global variable for all of them");
    one.close().await;
    // Either that one's VM or, if its end is noticed late, the other's, which is idle.
    let next = Http2::connect(address).await;
    assert_eq!(next.ask(1).await[0].1, 0);
    assert_eq!(launcher.started().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_of_one_connection_get_clean_vms_each_where_requests_are_isolated() {
    let (address, launcher, _serving) = isolated(Isolation::Request, 3);
    let connections = [Http2::connect(address).await, Http2::connect(address).await];
    for _ in 0..3 {
        let (mut seen, more) = tokio::join!(connections[0].ask(8), connections[1].ask(8));
        seen.extend(more);
        assert!(seen.iter().all(|(_, before)| *before == 0), "{seen:?}");
    }
    assert_eq!(launcher.started().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_ends_its_tenancy() {
    for isolation in [Isolation::Request, Isolation::Connection] {
        let (address, launcher, _serving) = isolated(isolation, 1);
        let answers = tokio::task::spawn_blocking(move || {
            [ask(address, &format!("{PANIC}: 1\r\n")), ask(address, ""), ask(address, "")]
        });
        let [panicked, other, again] = answers.await.unwrap();
        assert_eq!(panicked, "");
        assert!(other.contains("x-seen: 0 0") && again.contains("x-seen: 0 0"), "{other} {again}");
        assert_eq!(launcher.started().len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_ends_its_request_and_gives_back_its_place() {
    let mut config = config();
    let pool = Arc::get_mut(config.pools.get_mut("p").unwrap()).unwrap();
    (pool.hard_limit, pool.soft_limit, pool.scale.max) = (1, 1, 1);
    let listeners = crate::bind(&config).unwrap();
    let address = listeners.addresses().unwrap()[0].ip().unwrap();
    let registry = Registry::new();
    let launcher = FakeLauncher::new(Script::ready_after(Duration::ZERO, backend()));
    let pools = Pools::start(&config, launcher, PoolMetrics::register(&registry).unwrap()).unwrap();
    let metrics = Metrics::register(&registry).unwrap();
    let gauge = metrics.in_flight.clone();
    let server = Server {
        config: Arc::new(config),
        listeners,
        pools,
        metrics,
        access_log: AccessLog::disabled(),
        spans: None,
        challenges: Challenges::default(),
        timeouts: Timeouts::default(),
    };
    let (shutdown, stop) = watch::channel(false);
    let serving = tokio::spawn(serve(server, stop));
    let answers = tokio::task::spawn_blocking(move || {
        [ask(address, &format!("{PANIC}: 1\r\n")), ask(address, ""), ask(address, &format!("{PANIC}: 1\r\n"))]
    });
    let [panicked, other, again] = answers.await.unwrap();
    assert_eq!((panicked.as_str(), again.as_str()), ("", ""));
    // The only place of the only VM is free again.
    assert!(other.starts_with("HTTP/1.1 204 "), "{other}");
    shutdown.send_replace(true);
    assert_eq!(serving.await.unwrap().unwrap().unfinished, 0);
    assert_eq!(gauge.get(), 0);
}
