//! Requests that come back to the same VM.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use weir_config::model::{Config, External, Kind, ServerAddress};
use weir_pool::fake;

use crate::actions::routed;
use crate::backend::Backend;
use crate::client::{Response, ask, header};
use crate::secure;
use crate::site::{Site, ready, until};
use crate::split::with_servers;

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

/// Answers with its name, and closes the connection; to `/hold` not at all, which `held` counts.
async fn holding(name: &'static str, held: Arc<AtomicUsize>) -> Backend {
    Backend::start(move |mut connection| {
        let held = held.clone();
        async move {
            let Some((head, _)) = connection.request().await else { return };
            if head.starts_with("GET /hold ") {
                held.fetch_add(1, SeqCst);
                connection.some().await;
            } else {
                let length = name.len();
                let head =
                    format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n");
                connection.send(head + name).await;
            }
        }
    })
    .await
}

async fn named(name: &'static str) -> Backend {
    holding(name, Arc::default()).await
}

/// A site with one route to a pool of these servers.
async fn site(affinity: &str, servers: &[&Backend], hard_limit: u32) -> Site {
    let mut config = routed(&format!("[[route]]\npool = 'p'\naffinity = {affinity}\n"));
    to_servers(&mut config, servers, hard_limit);
    Site::start(config, ready(([127, 0, 0, 1], 9).into())).await
}

fn to_servers(config: &mut Config, servers: &[&Backend], hard_limit: u32) {
    let mut pool = fake::pool("p");
    (pool.soft_limit, pool.hard_limit) = (hard_limit, hard_limit);
    let addresses = servers.iter().map(|server| ServerAddress::Ip(server.address)).collect();
    pool.kind = Kind::External(External { addresses, resolve: Duration::from_secs(30) });
    config.pools.insert("p".to_owned(), Arc::new(pool));
}

async fn ask_with(site: &Site, field: &str) -> Response {
    let request = format!("GET / HTTP/1.1\r\nhost: a.example\r\n{field}\r\nconnection: close\r\n\r\n");
    let response = ask(site.address, &request).await;
    assert_eq!(response.status(), 200, "{}", response.head);
    response
}

/// The cookie that a response sets, `NAME=VALUE`.
fn cookie(response: &Response) -> Option<String> {
    Some(response.header("set-cookie")?.split(';').next()?.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_stays_with_its_server() {
    let [a, b, c, d] = NAMES.map(named);
    let servers = [a.await, b.await, c.await, d.await];
    let site = site("{ cookie = 'w' }", &servers.each_ref(), 64).await;
    let mut names = BTreeSet::new();
    for _ in 0..25 {
        let first = ask_with(&site, "x-a: b").await;
        let set = first.header("set-cookie").unwrap();
        assert!(set.ends_with("; Path=/; HttpOnly; SameSite=Lax"), "{set}");
        assert_eq!(first.header("cache-control"), Some("no-cache=\"set-cookie\""));
        let session = cookie(&first).unwrap();
        for _ in 0..4 {
            let again = ask_with(&site, &format!("cookie: x=y; {session}")).await;
            assert_eq!((again.text(), again.header("set-cookie")), (first.text(), None));
        }
        names.insert(first.text().to_owned());
    }
    // 25 throws of a die with four sides show one side only once in 2^48.
    assert!(names.len() > 1, "{names:?}");
    // What weir has not given is as good as none.
    let forged = ask_with(&site, &format!("cookie: w={}", "0".repeat(32))).await;
    assert!(cookie(&forged).unwrap().starts_with(&format!("w={}", "0".repeat(16))));
    assert!(cookie(&ask_with(&site, "cookie: w=1").await).is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_full_or_gone_is_replaced_by_another() {
    let held = Arc::<AtomicUsize>::default();
    let mut servers = vec![holding("a", held.clone()).await, holding("b", held.clone()).await];
    let site = site("{ cookie = 'w' }", &[&servers[0], &servers[1]], 1).await;
    let first = ask_with(&site, "x-a: b").await;
    let session = cookie(&first).unwrap();
    let holding = tokio::spawn({
        let (address, session) = (site.address, session.clone());
        async move { ask(address, &format!("GET /hold HTTP/1.1\r\nhost: a\r\ncookie: {session}\r\n\r\n")).await }
    });
    // It has the only place that there is with its server.
    until(|| held.load(SeqCst) == 1).await;
    let other = ask_with(&site, &format!("cookie: {session}")).await;
    assert_ne!(other.text(), first.text());
    let moved = cookie(&other).unwrap();
    assert!(moved[..18] == session[..18] && moved != session, "{moved} {session}");
    holding.abort();
    until(|| site.metric("weir_http_requests_in_flight") == Some(0.0)).await;
    // Who did not take the other one is served as before.
    assert_eq!(ask_with(&site, &format!("cookie: {session}")).await.text(), first.text());
    drop(servers.remove(usize::from(first.text() == "b")));
    let other = ask_with(&site, &format!("cookie: {session}")).await;
    assert_ne!(other.text(), first.text());
    assert_eq!(cookie(&other).as_ref(), Some(&moved));
    let again = ask_with(&site, &format!("cookie: {moved}")).await;
    assert_eq!((again.text(), cookie(&again)), (other.text(), None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hash_needs_no_cookie() {
    let [a, b, c, d] = NAMES.map(named);
    let servers = [a.await, b.await, c.await, d.await];
    let site = site("{ hash = 'header:x-user' }", &servers.each_ref(), 64).await;
    let mut names = BTreeSet::new();
    for user in 0..25 {
        let field = format!("x-user: {user}");
        let first = ask_with(&site, &field).await;
        for _ in 0..4 {
            let again = ask_with(&site, &field).await;
            assert_eq!((again.text(), again.header("set-cookie")), (first.text(), None));
        }
        names.insert(first.text().to_owned());
    }
    assert!(names.len() > 1, "{names:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_stays_in_its_pool() {
    let (old, new) = (named("old").await, named("new").await);
    let routes = "[[route]]\npools = [{ pool = 'q', weight = 1 }, { pool = 'r', weight = 1 }]\n\
                  affinity = { cookie = 'w', max_age = '1m' }\n";
    let site =
        Site::start(with_servers(routes, &[("q", &old), ("r", &new)]), ready(([127, 0, 0, 1], 9).into()))
            .await;
    let mut names = BTreeSet::new();
    for _ in 0..25 {
        let first = ask_with(&site, "x-a: b").await;
        assert!(first.header("set-cookie").unwrap().ends_with("; Max-Age=60"));
        for _ in 0..4 {
            let again = ask_with(&site, &format!("cookie: {}", cookie(&first).unwrap())).await;
            assert_eq!((again.text(), cookie(&again)), (first.text(), None));
        }
        names.insert(first.text().to_owned());
    }
    assert_eq!(names.len(), 2, "{names:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_with_a_vm_ends_with_it() {
    let (first, second) = (named("first").await, named("second").await);
    let site =
        Site::start(routed("[[route]]\npool = 'p'\naffinity = { cookie = 'w' }\n"), ready(first.address))
            .await;
    let response = ask_with(&site, "x-a: b").await;
    let session = cookie(&response).unwrap();
    let again = ask_with(&site, &format!("cookie: {session}")).await;
    assert_eq!((again.text(), cookie(&again)), ("first", None));
    site.launcher.script_usual(ready(second.address));
    drop(first);
    // Its retry finds a new VM.
    let response = ask_with(&site, &format!("cookie: {session}")).await;
    assert_eq!(response.text(), "second");
    assert!(cookie(&response).is_some_and(|renewed| renewed != session && renewed[..18] == session[..18]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cookie_that_came_over_tls_stays_there() {
    let (backend, directory) = (named("a").await, tempfile::tempdir().unwrap());
    let mut config = routed("[[route]]\npath = '/s'\npool = 'p'\naffinity = { cookie = 'w' }\n");
    config.listeners = vec![secure::listener(directory.path())];
    let site = Site::start(config, ready(backend.address)).await;
    let answer = secure::get(site.address, "/s/x").await;
    let set = header(&answer, "set-cookie").unwrap();
    assert!(set.ends_with("; Path=/s; HttpOnly; SameSite=Lax; Secure"), "{set}");
}
