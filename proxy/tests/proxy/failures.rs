//! VMs that fail.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use weir_config::model::{Retry, Thousandths};
use weir_pool::fake::Ailment;
use weir_proxy::Timeouts;
use weir_vmm::{ExitReason, VmEvent};

use crate::backend::Backend;
use crate::client::{Client, ask, get};
use crate::site::{Site, config, config_with, ready, until, within};

fn killed() -> ExitReason {
    ExitReason::Died("signal 9 (SIGKILL)".into())
}

/// Takes requests and never answers; tells when it has one.
async fn black_hole() -> (Backend, Arc<Notify>) {
    let taken = Arc::new(Notify::new());
    let tell = taken.clone();
    let backend = Backend::start(move |mut connection| {
        let tell = tell.clone();
        async move {
            while connection.head().await.is_some() {
                tell.notify_one();
            }
        }
    })
    .await;
    (backend, taken)
}

/// Takes a request and closes the connection.
async fn hangs_up() -> Backend {
    Backend::start(|mut connection| async move { drop(connection.request().await) }).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idempotent_request_goes_to_another_vm() {
    let (bad, good) = (hangs_up().await, Backend::echo("good").await);
    let site = Site::start(config(), ready(good.address)).await;
    site.launcher.script_next(ready(bad.address));
    assert_eq!(get(site.address, "/name").await.text(), "good");
    assert_eq!((bad.connections(), good.connections()), (1, 1));
    assert_eq!(site.metric("weir_http_retries_total"), Some(1.0));
    // Whoever hung up is not asked again.
    assert_eq!(get(site.address, "/name").await.text(), "good");
    let (_, log) = site.end().await;
    assert!(log.iter().all(|line| line["vm"] == 2 && line["error"].is_null()), "{log:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_body_is_sent_again() {
    let (bad, good) = (hangs_up().await, Backend::echo("good").await);
    let site = Site::start(config(), ready(good.address)).await;
    site.launcher.script_next(ready(bad.address));
    let request = "PUT /x HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello";
    let response = ask(site.address, request).await;
    assert!(response.text().ends_with("\r\n\r\nhello"), "{}", response.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_post_is_not_sent_twice() {
    let (bad, good) = (hangs_up().await, Backend::echo("good").await);
    let site = Site::start(config(), ready(good.address)).await;
    site.launcher.script_next(ready(bad.address));
    let response = ask(site.address, "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello").await;
    assert_eq!((response.status(), response.header("weir-error")), (502, Some("vm_failed")));
    assert_eq!(good.connections(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_connection_that_a_healthy_vm_closes_is_no_failure() {
    // One answer per connection; the next request on it meets the connection's end.
    let backend = Backend::start(|mut connection| async move {
        connection.request().await;
        connection.answer(b"ok").await;
        connection.request().await;
    })
    .await;
    let site = Site::start(config(), ready(backend.address)).await;
    for connections in 1..=3 {
        assert_eq!(get(site.address, "/").await.text(), "ok");
        assert_eq!(backend.connections(), connections);
    }
    assert_eq!(site.launcher.started().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn three_tries_and_no_more() {
    let bad = hangs_up().await;
    let site = Site::start(config(), ready(bad.address)).await;
    let response = get(site.address, "/").await;
    assert!([502, 503].contains(&response.status()), "{}", response.head);
    assert!(bad.connections() <= 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vm_nobody_listens_in_is_replaced_even_for_a_post() {
    let good = Backend::echo("good").await;
    let nobody = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let site = Site::start(config(), ready(good.address)).await;
    site.launcher.script_next(ready(nobody));
    let response = ask(site.address, "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello").await;
    assert_eq!(response.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_death_is_noticed_and_the_request_succeeds_elsewhere() {
    let (hole, taken) = black_hole().await;
    let good = Backend::echo("good").await;
    let site = Site::start(config(), ready(good.address)).await;
    site.launcher.script_next(ready(hole.address));
    let asking = tokio::spawn(get(site.address, "/name"));
    within(taken.notified()).await;
    site.launcher.crash(site.first_vm().await, killed());
    assert_eq!(within(asking).await.unwrap().text(), "good");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_leaves_a_vm_that_is_stopped_and_stays_with_one_that_is_slow() {
    for (ailment, moves) in [(Ailment::Stopped, true), (Ailment::Silent, false)] {
        let (hole, taken) = black_hole().await;
        let good = Backend::echo("good").await;
        let config = config_with(|pool| pool.health.timeout = Duration::from_millis(40));
        let read = if moves { Timeouts::default().read } else { Duration::from_millis(800) };
        let timeouts = Timeouts { read, ..Timeouts::default() };
        let site = Site::start_with(config, ready(good.address), timeouts).await;
        site.launcher.script_next(ready(hole.address));
        let asking = tokio::spawn(get(site.address, "/name"));
        within(taken.notified()).await;
        site.launcher.set_ailment(site.first_vm().await, Some(ailment));
        let response = within(asking).await.unwrap();
        let (killed, expected) = if moves { (1.0, 200) } else { (0.0, 504) };
        assert_eq!(response.status(), expected, "{}", response.head);
        let exits = site.metric("weir_vm_ejections_total{pool=\"p\",reason=\"lost\"}").unwrap_or(0.0);
        assert_eq!(exits, killed);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn retries_are_made_as_far_as_the_pool_s_budget_goes() {
    let (bad, good) = (hangs_up().await, Backend::echo("good").await);
    let site = Site::start(
        config_with(|pool| pool.retry = Retry { budget: Thousandths(0), floor: 0 }),
        ready(good.address),
    )
    .await;
    site.launcher.script_next(ready(bad.address));
    let response = get(site.address, "/name").await;
    assert_eq!((response.status(), response.header("weir-error")), (502, Some("vm_failed")));
    assert_eq!(site.metric("weir_http_retries_total{pool=\"p\"}"), Some(0.0));
    assert_eq!(site.metric("weir_http_retries_refused_total{pool=\"p\"}"), Some(1.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vm_that_leaves_requests_in_a_row_unanswered_is_replaced() {
    let (hole, _taken) = black_hole().await;
    let good = Backend::echo("good").await;
    let timeouts = Timeouts { read: Duration::from_millis(50), ..Timeouts::default() };
    let site = Site::start_with(config(), ready(good.address), timeouts).await;
    site.launcher.script_next(ready(hole.address));
    for _ in 0..3 {
        assert_eq!(get(site.address, "/name").await.status(), 504);
    }
    assert_eq!(get(site.address, "/name").await.text(), "good");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_kills_vms_is_refused_in_its_second_retry_and_others_are_served() {
    let (hole, taken) = black_hole().await;
    let site = Site::start(config(), ready(hole.address)).await;
    let killer = tokio::spawn(get(site.address, "/kill"));
    for nth in 0..2 {
        within(taken.notified()).await;
        let vm = site.launcher.started()[nth].id;
        site.launcher.crash(vm, ExitReason::Panicked("of it".into()));
    }
    let refused = within(killer).await.unwrap();
    assert_eq!((refused.status(), refused.header("weir-error")), (503, Some("quarantined")));
    assert_eq!(refused.header("retry-after"), Some("60"));
    let good = Backend::echo("good").await;
    site.launcher.script_usual(ready(good.address));
    assert_eq!(get(site.address, "/name").await.text(), "good");
    assert_eq!(get(site.address, "/kill").await.header("weir-error"), Some("quarantined"));
    assert_eq!(site.metric("weir_quarantine_entries"), Some(1.0));
    assert_eq!(site.metric("weir_requests_shed_total{reason=\"quarantined\"}"), Some(2.0));
    assert_eq!(site.launcher.started().len(), 3);
    let (_, log) = site.end().await;
    assert_eq!(log.iter().filter(|line| line["error"] == "quarantined").count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_death_in_a_response_breaks_it_off() {
    // pingora holds back the first 1,460 bytes of a response with a length.
    for begin in ["content-length: 10000\r\n\r\n", "transfer-encoding: chunked\r\n\r\n2710\r\n"] {
        let backend = Backend::start(move |mut connection| async move {
            connection.request().await;
            connection.send(format!("HTTP/1.1 200 OK\r\n{begin}{}", "x".repeat(5000))).await;
            // Until the proxy ends it.
            connection.some().await;
        })
        .await;
        let site = Site::start(config(), ready(backend.address)).await;
        let mut client = Client::connect(site.address).await;
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        let head = client.head().await;
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        site.launcher.crash(site.first_vm().await, killed());
        // Neither the length that was announced nor a last chunk.
        let (body, whole) = client.exactly(10_000).await;
        assert!(!whole && body.len() >= 1000, "{}", body.len());
        assert!(!body.ends_with(b"\r\n0\r\n\r\n"));
        until(|| site.metric("weir_http_responses_truncated_total") == Some(1.0)).await;
        let (_, log) = site.end().await;
        assert_eq!((&log[0]["status"], &log[0]["error"]), (&200.into(), &"truncated".into()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vm_that_does_not_begin_to_answer_times_out() {
    let (hole, _taken) = black_hole().await;
    let timeouts = Timeouts { read: Duration::from_millis(50), ..Timeouts::default() };
    let site = Site::start_with(config(), ready(hole.address), timeouts).await;
    let response = get(site.address, "/").await;
    assert_eq!((response.status(), response.header("weir-error")), (504, Some("upstream_timeout")));
    assert_eq!(hole.connections(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_do_not_outlive_their_vm() {
    let backend = Backend::echo("vm").await;
    let site = Site::start(config(), ready(backend.address)).await;
    let mut client = Client::connect(site.address).await;
    for _ in 0..3 {
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        assert_eq!(client.response().await.status(), 200);
    }
    assert_eq!(backend.connections(), 1);
    let first = site.first_vm().await;
    site.launcher.crash(first, killed());
    within(site.pool().instances().wait_for(|instances| instances.ready == 0)).await.unwrap();
    // The next VM has the same address; it must not get the dead one's connection.
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!(client.response().await.status(), 200);
    assert_ne!(site.launcher.started()[1].id, first);
    assert_eq!(backend.connections(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn nonsense_from_a_vm_is_a_failed_vm() {
    let backend = Backend::start(|mut connection| async move {
        connection.request().await;
        connection.send("\x16\x03\x01 this is not http\r\n\r\n").await;
        connection.some().await;
    })
    .await;
    let site = Site::start(config(), ready(backend.address)).await;
    let response = ask(site.address, "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n").await;
    assert_eq!((response.status(), response.header("weir-error")), (502, Some("vm_failed")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_gives_its_place_back() {
    let (hole, taken) = black_hole().await;
    let site = Site::start(config(), ready(hole.address)).await;
    let mut client = Client::connect(site.address).await;
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    within(taken.notified()).await;
    drop(client);
    until(|| site.metric("weir_http_requests_in_flight") == Some(0.0)).await;
    // It was the client's doing: the VM stays.
    assert_eq!(site.pool().instances().borrow().ready, 1);
    site.launcher.say(site.first_vm().await, VmEvent::Log("still here".into()));
    let (_, log) = site.end().await;
    assert_eq!((&log[0]["status"], &log[0]["error"]), (&499.into(), &"client_gone".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_switch_that_nobody_asked_for_is_a_failed_vm() {
    let backend = Backend::start(|mut connection| async move {
        connection.request().await;
        connection
            .send(
                "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nbytes",
            )
            .await;
        connection.some().await;
    })
    .await;
    for request in [
        "GET / HTTP/1.1\r\nhost: a\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nhi",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n",
        "GET / HTTP/1.0\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
    ] {
        let site = Site::start(config(), ready(backend.address)).await;
        let mut client = Client::connect(site.address).await;
        client.send(request).await;
        let response = client.response().await;
        let answer = (response.status(), response.header("weir-error"));
        assert_eq!(answer, (502, Some("vm_failed")), "{request}");
    }
}
