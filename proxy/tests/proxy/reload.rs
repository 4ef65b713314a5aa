//! A configuration that becomes another one while requests are under way.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::task::JoinSet;
use weir_config::change::Change;
use weir_config::model::{Certificate, HostPattern, Isolation, Listener, Tls, TlsVersion};
use weir_pool::fake;
use weir_proxy::{ListenerChange, ServeError, listeners_to_bind};

use crate::backend::Backend;
use crate::client::Client;
use crate::drain::held_back;
use crate::site::{Site, config, ready, route, within};

/// Answers all requests with `body`.
async fn says(body: &'static str) -> Backend {
    Backend::start(move |mut connection| async move {
        while connection.request().await.is_some() {
            connection.answer(body.as_bytes()).await;
        }
    })
    .await
}

const GET: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";

async fn ask(client: &mut Client) -> (u16, String) {
    client.send(GET).await;
    let response = client.response().await;
    (response.status(), response.text().to_owned())
}

/// Of the site's second pool.
fn to_q(config: &mut weir_config::model::Config) {
    config.pools.insert("q".to_owned(), Arc::new(fake::pool("q")));
    config.pools.remove("p");
    config.routes = vec![route("other", HostPattern::Any, "/", "q")];
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_keeps_the_route_and_the_pool_that_it_began_with() {
    let (first, taken, release) = held_back().await;
    let site = Site::start(config(), ready(first.address)).await;
    let (mut busy, mut kept) = (Client::connect(site.address).await, Client::connect(site.address).await);
    busy.send(GET).await;
    within(taken.notified()).await;
    let second = says("second").await;
    site.launcher.script_usual(ready(second.address));
    site.reload(to_q).await;
    assert_eq!(ask(&mut kept).await, (200, "second".to_owned()));
    assert!(site.pools.get("p").is_none());
    release.notify_one();
    assert_eq!(busy.response().await.text(), "done");
    // The same connection, and the routes of now.
    assert_eq!(ask(&mut busy).await, (200, "second".to_owned()));
    assert_eq!(site.metric("weir_http_requests_total{code=\"200\",pool=\"p\",route=\"all\"}"), Some(1.0));
    site.reload(|config| config.routes.clear()).await;
    assert_eq!(ask(&mut kept).await.0, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_fails_while_pools_are_exchanged_under_it() {
    let backend = says("ok").await;
    let site = Site::start(config(), ready(backend.address)).await;
    let mut clients = JoinSet::new();
    for _ in 0..4 {
        let mut client = Client::connect(site.address).await;
        clients.spawn(async move {
            for _ in 0..300 {
                assert_eq!(ask(&mut client).await, (200, "ok".to_owned()));
            }
        });
    }
    while !clients.is_empty() {
        site.reload(to_q).await;
        site.reload(|config| {
            config.pools.insert("p".to_owned(), Arc::new(fake::pool("p")));
            config.pools.remove("q");
            config.routes = vec![route("all", HostPattern::Any, "/", "p")];
        })
        .await;
        while let Some(ended) = clients.try_join_next() {
            ended.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_come_after_a_reload_are_isolated_by_a_pool_that_came_with_it() {
    let backend = says("ok").await;
    let site = Site::start(config(), ready(backend.address)).await;
    site.reload(|config| {
        let mut pool = fake::pool("q");
        (pool.isolation, pool.soft_limit, pool.hard_limit) = (Isolation::Connection, 1, 1);
        config.pools.insert("q".to_owned(), Arc::new(pool));
        config.routes = vec![route("all", HostPattern::Any, "/", "q")];
    })
    .await;
    let (mut one, mut other) = (Client::connect(site.address).await, Client::connect(site.address).await);
    for _ in 0..2 {
        assert_eq!((ask(&mut one).await.0, ask(&mut other).await.0), (200, 200));
    }
    let vms: Vec<_> = site.launcher.started().into_iter().filter(|vm| vm.pool == "q").collect();
    assert_eq!(vms.len(), 2, "each has one of its own");
    assert!(vms.iter().all(|vm| site.launcher.resets(vm.id) == 0));
}

/// An address that nobody listens on, of a socket that was just closed.
pub(crate) fn free_address() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn listeners_come_and_go() {
    let (backend, taken, release) = held_back().await;
    let site = Site::start(config(), ready(backend.address)).await;
    let second = free_address();
    site.reload(|config| config.listeners.push(Listener::at(second))).await;
    let mut busy = Client::connect(second).await;
    busy.send(GET).await;
    within(taken.notified()).await;
    let mut first = Client::connect(site.address).await;
    site.reload(|config| drop(config.listeners.pop())).await;
    within(async { while TcpStream::connect(second).await.is_ok() {} }).await;
    release.notify_one();
    let response = busy.response().await;
    assert_eq!((response.text(), response.header("connection")), ("done", Some("close")));
    assert!(busy.is_at_end().await);
    // The other one has noticed nothing.
    first.send(GET).await;
    release.notify_one();
    let response = first.response().await;
    assert_eq!((response.text(), response.header("connection")), ("done", Some("keep-alive")));
    // And once more where one was before.
    site.reload(|config| config.listeners.push(Listener::at(second))).await;
    assert!(TcpStream::connect(second).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn another_listener_takes_an_address_over_without_a_refused_connection() {
    let backend = says("ok").await;
    let mut start = config();
    let address = free_address();
    start.listeners = vec![Listener::at(address)];
    let site = Site::start(start, ready(backend.address)).await;
    let over = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..2)
        .map(|_| {
            let over = over.clone();
            tokio::spawn(async move {
                let mut count = 0;
                while !over.load(SeqCst) {
                    let mut client = Client::connect(address).await;
                    assert_eq!(ask(&mut client).await, (200, "ok".to_owned()));
                    count += 1;
                }
                count
            })
        })
        .collect();
    for header_timeout in 1..30 {
        let header_timeout = Duration::from_secs(header_timeout);
        site.reload(|config| config.listeners[0].header_timeout = header_timeout).await;
    }
    over.store(true, SeqCst);
    for client in clients {
        assert!(within(client).await.unwrap() > 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_that_cannot_be_used_change_nothing() {
    let tls = Tls {
        certificates: vec![Certificate { certificate: "/none".into(), key: "/none".into() }],
        acme: Vec::new(),
        min_version: TlsVersion::Tls12,
        client_auth: None,
        hsts: None,
    };
    let old = config();
    let mut new = config();
    new.listeners.push(Listener { tls: Some(tls), ..Listener::at(free_address()) });
    let change = Change::between(&old, &new).unwrap();
    assert_eq!(listeners_to_bind(&change).count(), 1);
    let socket = weir_proxy::bind_listener(&new.listeners[0]).unwrap();
    let error = ListenerChange::new(&change, vec![socket]).unwrap_err();
    assert_eq!(error.to_string(), "listener[0].tls");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_has_ended_says_so() {
    let (reloader, orders) = weir_proxy::reloader();
    drop(orders);
    let listeners = ListenerChange::new(&Change::default(), Vec::new()).unwrap();
    let reloaded = within(reloader.reload(Arc::new(config()), listeners)).await;
    assert!(matches!(reloaded, Err(ServeError::Ended(None))));
}
