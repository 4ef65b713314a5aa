//! What a bug in one request's task does to others.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use prometheus::Registry;
use weir_pool::PoolMetrics;
use weir_pool::fake::{FakeLauncher, Script};

use super::*;
use crate::testing::{PANIC, config};

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

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_ends_its_request_and_gives_back_its_place() {
    let mut config = config();
    let pool = Arc::get_mut(config.pools.get_mut("p").unwrap()).unwrap();
    (pool.hard_limit, pool.soft_limit, pool.scale.max) = (1, 1, 1);
    let listeners = crate::bind(&config).unwrap();
    let address = listeners.addresses().unwrap()[0];
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
