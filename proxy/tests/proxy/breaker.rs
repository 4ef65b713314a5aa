//! Pools that fail or refuse, and what takes their place.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering::SeqCst};
use std::time::Duration;

use weir_config::model::{Breaker, Config, Overflow, Queue, Retry, Thousandths};
use weir_pool::fake::{self, Boot, Script};
use weir_vmm::ExitReason;

use crate::actions::routed;
use crate::backend::Backend;
use crate::client::{Client, Response, ask, get};
use crate::site::{Site, config_with, line, ready, silent, until, within};
use crate::split::with_servers;

/// Answers with a status that the test sets; hangs up while that is 0.
async fn moody(status: Arc<AtomicU16>) -> Backend {
    Backend::start(move |mut connection| {
        let status = status.clone();
        async move {
            while connection.request().await.is_some() {
                let status = status.load(SeqCst);
                let answer = format!("HTTP/1.1 {status} X\r\ncontent-length: 2\r\n\r\nok");
                if status == 0 || !connection.send(answer).await {
                    return;
                }
            }
        }
    })
    .await
}

fn broken_after(failures: u32, open_for: Duration) -> Breaker {
    Breaker { failures, open_for, half_open: 1, ..Breaker::default() }
}

const POST: &str = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

fn said(response: &Response) -> (u16, Option<&str>) {
    (response.status(), response.header("weir-error"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_that_fails_is_left_alone() {
    let backend = moody(Arc::default()).await;
    let config = config_with(|pool| pool.breaker = Some(broken_after(2, Duration::from_secs(100))));
    let site = Site::start(config, ready(backend.address)).await;
    for _ in 0..2 {
        assert_eq!(said(&ask(site.address, POST).await), (502, Some("vm_failed")));
    }
    let (vms, connections) = (site.launcher.started().len(), backend.connections());
    let response = ask(site.address, POST).await;
    assert_eq!(said(&response), (503, Some("circuit_open")));
    let after: u64 = response.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=100).contains(&after), "{after}");
    assert_eq!(said(&get(site.address, "/").await), (503, Some("circuit_open")));
    assert_eq!((site.launcher.started().len(), backend.connections()), (vms, connections));
    assert_eq!(site.metric(r#"weir_pool_breaker_state{pool="p"}"#), Some(2.0));
    assert_eq!(site.metric(r#"weir_pool_breaker_opened_total{pool="p"}"#), Some(1.0));
    // It stays open when something else changes, and is a new one when it changes itself.
    site.reload(|config| {
        config.routes.push(crate::site::route("x", weir_config::HostPattern::Any, "/x", "p"))
    })
    .await;
    assert_eq!(said(&get(site.address, "/").await), (503, Some("circuit_open")));
    site.reload(|config| {
        let pool = Arc::make_mut(config.pools.get_mut("p").unwrap());
        pool.breaker.as_mut().unwrap().failures = 3;
    })
    .await;
    assert_eq!(said(&ask(site.address, POST).await), (502, Some("vm_failed")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_breaker_that_is_taken_away_shows_nothing() {
    let backend = moody(Arc::default()).await;
    let config = config_with(|pool| pool.breaker = Some(broken_after(1, Duration::from_secs(100))));
    let site = Site::start(config, ready(backend.address)).await;
    let state = || site.metric(r#"weir_pool_breaker_state{pool="p"}"#);
    let set = async |breaker: Option<Breaker>| {
        site.reload(|config| Arc::make_mut(config.pools.get_mut("p").unwrap()).breaker = breaker).await;
    };
    assert_eq!((ask(site.address, POST).await.status(), state()), (502, Some(2.0)));
    set(None).await;
    assert_eq!((ask(site.address, POST).await.status(), state()), (502, None));
    set(Some(broken_after(1, Duration::from_secs(100)))).await;
    assert_eq!(state(), Some(0.0));
    assert_eq!((ask(site.address, POST).await.status(), state()), (502, Some(2.0)));
    // Its pool goes, and with it all that was known of it.
    site.reload(|config| (config.pools, config.routes) = Default::default()).await;
    assert_eq!(state(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_tried_again_and_closes_when_that_goes_well() {
    let status = Arc::new(AtomicU16::new(500));
    let backend = moody(status.clone()).await;
    let config = config_with(|pool| {
        let open_for = Duration::from_millis(1);
        pool.breaker = Some(Breaker { server_errors: true, ..broken_after(1, open_for) });
    });
    let site = Site::start(config, ready(backend.address)).await;
    let state = || site.metric(r#"weir_pool_breaker_state{pool="p"}"#);
    assert_eq!(get(site.address, "/").await.status(), 500);
    assert_eq!(state(), Some(2.0));
    // A probe that fails opens it again.
    within(async { while get(site.address, "/").await.status() != 500 {} }).await;
    assert_eq!(state(), Some(2.0));
    assert!(site.metric(r#"weir_pool_breaker_opened_total{pool="p"}"#) >= Some(2.0));
    status.store(200, SeqCst);
    within(async { while get(site.address, "/").await.status() != 200 {} }).await;
    assert_eq!(state(), Some(0.0));
    assert_eq!(get(site.address, "/").await.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn statuses_are_no_failures_unless_that_is_wanted_and_a_client_that_goes_is_none() {
    let backend = moody(Arc::new(AtomicU16::new(500))).await;
    let config = config_with(|pool| {
        pool.breaker = Some(Breaker { max_in_flight: Some(1), ..broken_after(1, Duration::from_secs(100)) });
    });
    let site = Site::start(config, silent(backend.address)).await;
    // One waits for a VM that does not come: no other is let in, and when it goes it was no failure.
    let mut waiting = Client::connect(site.address).await;
    waiting.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    until(|| site.pool().queued() == 1).await;
    assert_eq!(said(&get(site.address, "/").await), (503, Some("pool_full")));
    drop(waiting);
    until(|| site.pool().queued() == 0).await;
    site.launcher.script_usual(ready(backend.address));
    let first = site.first_vm().await;
    site.launcher.crash(first, ExitReason::Died("signal 9 (SIGKILL)".into()));
    for _ in 0..3 {
        within(async { while get(site.address, "/").await.status() != 500 {} }).await;
    }
    assert_eq!(site.metric(r#"weir_pool_breaker_state{pool="p"}"#), Some(0.0));
}

/// Pool `p` does what `change` says, pool `spare` is a server.
fn with_spare(spare: &Backend, change: impl FnOnce(&mut weir_config::model::Pool)) -> Config {
    let routes = "[[route]]\nname = 'r'\npool = 'p'\nfallback = 'spare'\n";
    let mut config = with_servers(routes, &[("spare", spare)]);
    let mut pool = fake::pool("p");
    change(&mut pool);
    config.pools.insert("p".to_owned(), Arc::new(pool));
    config
}

#[tokio::test(flavor = "multi_thread")]
async fn the_fallback_serves_what_the_pool_refuses() {
    let spare = Backend::echo("spare").await;
    let config = with_spare(&spare, |pool| pool.scale.max = 1);
    let site = Site::start(config, Script::boot(Boot::Exits(Duration::ZERO, ExitReason::Exited(1)))).await;
    let response = get(site.address, "/name").await;
    assert_eq!((response.status(), response.text()), (200, "spare"));
    assert_eq!(response.header("weir-error"), None);
    let series = r#"weir_http_requests_total{code="200",pool="spare",route="r"}"#;
    until(|| site.metric(series) == Some(1.0)).await;
    let (_, log) = site.end().await;
    assert_eq!(
        (&line(&log, "/name")["pool"], &line(&log, "/name")["error"]),
        (&"spare".into(), &serde_json::Value::Null)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_fallback_serves_when_nobody_has_room_or_takes_connections() {
    let spare = Backend::echo("spare").await;
    let config = with_spare(&spare, |pool| {
        pool.queue = Queue { overflow: Overflow::Reject, ..Queue::default() };
    });
    let site = Site::start(config, Script::boot(Boot::Silent)).await;
    assert_eq!(get(site.address, "/name").await.text(), "spare");
    // Nobody listens in any VM, and there is no budget to find that out several times.
    let config = with_spare(&spare, |pool| pool.retry = Retry { budget: Thousandths(0), floor: 0 });
    let site = Site::start(config, Script::ready_after(Duration::ZERO, ([127, 0, 0, 1], 1).into())).await;
    let post = "POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\nconnection: close\r\n\r\nhi";
    assert!(ask(site.address, post).await.text().ends_with("hi"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_fallback_gets_nothing_that_a_vm_has_seen() {
    let (spare, bad) = (Backend::echo("spare").await, moody(Arc::default()).await);
    let config = with_spare(&spare, |pool| {
        pool.retry = Retry { budget: Thousandths(0), floor: 0 };
        pool.breaker = Some(broken_after(1, Duration::from_secs(100)));
    });
    let site = Site::start(config, ready(bad.address)).await;
    assert_eq!(said(&get(site.address, "/name").await), (502, Some("vm_failed")));
    assert_eq!(site.metric(r#"weir_http_requests_total{code="200",pool="spare""#), None);
    // And then it gets all.
    assert_eq!(get(site.address, "/name").await.text(), "spare");
    assert_eq!(bad.connections(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fallback_that_refuses_as_well_has_the_last_word() {
    let mut config = routed("[pool.q]\nimage = 'hello'\n[[route]]\npool = 'p'\nfallback = 'q'\n");
    let reject = |name: &str| {
        let mut pool = fake::pool(name);
        pool.queue = Queue { overflow: Overflow::Reject, ..Queue::default() };
        (name.to_owned(), Arc::new(pool))
    };
    config.pools = [reject("p"), reject("q")].into();
    let site = Site::start(config, Script::boot(Boot::Silent)).await;
    assert_eq!(said(&get(site.address, "/").await), (503, Some("no_room")));
    let (_, log) = site.end().await;
    assert_eq!(line(&log, "/")["pool"], "q");
}
