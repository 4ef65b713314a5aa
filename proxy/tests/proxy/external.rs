//! Pools of servers outside.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket};
use weir_config::model::{Config, External, HostPattern, Kind, ServerAddress};
use weir_pool::fake;

use crate::backend::Backend;
use crate::client::{Client, get};
use crate::site::{Site, config_with, ready, route, until, within};

/// One pool `p` of these servers with a route for everything, checked every 160 ms, and soon when out.
fn config(addresses: &[SocketAddr]) -> Config {
    let servers = addresses.iter().copied().map(ServerAddress::Ip).collect();
    config_with(|pool| {
        pool.kind = Kind::External(External { addresses: servers, resolve: Duration::from_secs(30) });
        pool.health.interval = Duration::from_millis(160);
        (pool.soft_limit, pool.hard_limit) = (4, 4);
    })
}

/// Nobody is ever asked to start a VM.
async fn site(config: Config) -> Site {
    Site::start(config, ready(([127, 0, 0, 1], 9).into())).await
}

fn in_service(site: &Site) -> Option<f64> {
    site.metric(r#"weir_upstream_servers{pool="p",state="in_service"}"#)
}

/// An address where nobody listens, and nobody else will.
fn reserved() -> (TcpSocket, SocketAddr) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

#[tokio::test]
async fn requests_are_spread_over_the_servers_and_connections_are_kept() {
    let (one, two) = (Backend::echo("one").await, Backend::echo("two").await);
    let site = site(config(&[one.address, two.address])).await;
    until(|| in_service(&site) == Some(2.0)).await;
    let checks = [one.connections(), two.connections()];
    let mut client = Client::connect(site.address).await;
    let mut seen = [0, 0];
    for _ in 0..40 {
        client.send("GET /name HTTP/1.1\r\nhost: a.example\r\n\r\n").await;
        let response = client.response().await;
        seen[usize::from(response.text() == "two")] += 1;
    }
    // 40 tosses of a coin come up all alike once in 2^39.
    assert!(seen[0] > 0 && seen[1] > 0, "{seen:?}");
    assert!(site.launcher.started().is_empty(), "servers are not started");
    // No check takes as long as to come between, or a few did: far fewer than requests.
    let made = one.connections() + two.connections() - checks[0] - checks[1];
    assert!(made < 40, "{made} connections for 40 requests");
}

#[tokio::test]
async fn who_refuses_is_out_until_it_is_back_and_nobody_notices() {
    let (socket, address) = reserved();
    let other = Backend::echo("other").await;
    let site = site(config(&[address, other.address])).await;
    until(|| in_service(&site) == Some(1.0)).await;
    for _ in 0..5 {
        assert_eq!(get(site.address, "/name").await.text(), "other");
    }
    // It comes up.
    let listener = socket.listen(16).unwrap();
    let serving = tokio::spawn(serve_name(listener, "back"));
    until(|| in_service(&site) == Some(2.0)).await;
    within(async { while get(site.address, "/name").await.text() != "back" {} }).await;
    // And goes away: whoever meets that is served by the other.
    serving.abort();
    let _ = serving.await;
    within(async {
        while site.metric(r#"weir_upstream_ejections_total{pool="p",reason="refused"}"#) != Some(1.0) {
            let response = get(site.address, "/name").await;
            assert_eq!((response.status(), response.text()), (200, "other"));
        }
    })
    .await;
}

/// Answers one request per connection with its name.
async fn serve_name(listener: TcpListener, name: &'static str) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    while let Ok((mut stream, _)) = listener.accept().await {
        if stream.read(&mut [0; 4096]).await.is_ok_and(|read| read > 0) {
            let answer = format!(
                "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{name}",
                name.len()
            );
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    }
}

#[tokio::test]
async fn who_waits_for_the_only_server_is_served_when_it_is_there() {
    let (socket, address) = reserved();
    let site = site(config(&[address])).await;
    let waiting = tokio::spawn(get(site.address, "/name"));
    until(|| site.pool().queued() == 1).await;
    let serving = tokio::spawn(serve_name(socket.listen(16).unwrap(), "late"));
    let response = within(waiting).await.unwrap();
    assert_eq!((response.status(), response.text()), (200, "late"));
    serving.abort();
}

/// Answers checks as it is told to, closes the connection on `/break`, and answers anything else.
async fn fickle(well: Arc<AtomicBool>, name: &'static str) -> Backend {
    Backend::start(move |mut connection| {
        let well = well.clone();
        async move {
            while let Some((head, _)) = connection.request().await {
                if head.starts_with("GET /break ") {
                    return;
                }
                if head.starts_with("GET /up ") && !well.load(SeqCst) {
                    connection.send("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n").await;
                } else if !connection.answer(name.as_bytes()).await {
                    return;
                }
            }
        }
    })
    .await
}

#[tokio::test]
async fn checks_take_servers_out_and_back_but_not_the_last_one() {
    let well: [Arc<AtomicBool>; 2] = std::array::from_fn(|_| Arc::new(AtomicBool::new(true)));
    let servers = [fickle(well[0].clone(), "0").await, fickle(well[1].clone(), "1").await];
    let mut config = config(&servers.each_ref().map(|server| server.address));
    let pool = Arc::get_mut(config.pools.get_mut("p").unwrap()).unwrap();
    pool.health.path = Some("/up".to_owned());
    pool.health.interval = Duration::from_millis(48);
    let site = site(config).await;
    until(|| in_service(&site) == Some(2.0)).await;
    well[0].store(false, SeqCst);
    until(|| in_service(&site) == Some(1.0)).await;
    for _ in 0..8 {
        assert_eq!(get(site.address, "/").await.text(), "1");
    }
    // A whole round of checks that fail, and more.
    well[1].store(false, SeqCst);
    let failed = || site.metric(r#"weir_health_checks_total{pool="p",result="failed"}"#).unwrap_or(0.0);
    let before = failed();
    until(|| failed() > before + 20.0).await;
    assert_eq!((in_service(&site), get(site.address, "/").await.text()), (Some(1.0), "1"));
    well.iter().for_each(|well| well.store(true, SeqCst));
    until(|| in_service(&site) == Some(2.0)).await;
    assert_eq!(site.metric(r#"weir_upstream_ejections_total{pool="p",reason="unhealthy"}"#), Some(1.0));
}

#[tokio::test]
async fn a_client_cannot_take_the_last_server_away_by_what_it_asks() {
    let server = fickle(Arc::new(AtomicBool::new(true)), "there").await;
    let site = site(config(&[server.address])).await;
    until(|| in_service(&site) == Some(1.0)).await;
    for _ in 0..4 {
        assert_eq!(get(site.address, "/break").await.status(), 502);
        assert_eq!(get(site.address, "/").await.text(), "there");
    }
    assert_eq!(in_service(&site), Some(1.0));
}

#[tokio::test]
async fn a_server_has_no_more_requests_than_its_limit_and_a_drain_waits_for_those() {
    let server = Backend::start(|mut connection| async move {
        let Some(_) = connection.request().await else { return };
        // The second part of the answer comes when the client has sent more.
        connection.send("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nab").await;
        if connection.some().await.is_some() {
            connection.send("cd").await;
        }
    })
    .await;
    let site = site(config(&[server.address])).await;
    until(|| in_service(&site) == Some(1.0)).await;
    let mut clients = Vec::new();
    for _ in 0..4 {
        let mut client = Client::connect(site.address).await;
        client.send("POST / HTTP/1.1\r\nhost: a.example\r\ncontent-length: 100\r\n\r\n").await;
        assert!(client.head().await.starts_with("HTTP/1.1 200"));
        clients.push(client);
    }
    let fifth = tokio::spawn(get(site.address, "/"));
    until(|| site.pool().queued() == 1).await;
    fifth.abort();
    until(|| site.pool().queued() == 0).await;
    let status = site.pool().status().await.unwrap();
    let vms: Vec<_> = status.vms.iter().map(|vm| (vm.address, vm.in_flight, vm.state.label())).collect();
    assert_eq!(vms, [(Some(server.address), 4, "ready")]);
    let pools = site.pools.clone();
    let drained = tokio::spawn(async move { pools.drain(Duration::from_secs(8)).await });
    until(|| site.pool().instances().borrow().draining == 1).await;
    drop(clients);
    within(drained).await.unwrap();
}

#[tokio::test]
async fn a_pool_of_servers_stands_beside_one_of_vms() {
    let (vm, server) = (Backend::echo("vm").await, Backend::echo("server").await);
    let mut config = config(&[server.address]);
    config.pools.insert("q".to_owned(), Arc::new(fake::pool("q")));
    config.routes.push(route("vms", HostPattern::Exact("vms.example".to_owned()), "/", "q"));
    let site = Site::start(config, ready(vm.address)).await;
    for (host, name) in [("a.example", "server"), ("vms.example", "vm")] {
        let mut client = Client::connect(site.address).await;
        client.send(&format!("GET /name HTTP/1.1\r\nhost: {host}\r\n\r\n")).await;
        assert_eq!(client.response().await.text(), name);
    }
    assert_eq!(site.launcher.started().len(), 1);
}
