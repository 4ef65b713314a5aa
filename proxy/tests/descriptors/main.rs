//! The process's descriptors: none is left behind, and what if none is left. They are the process's, so these tests are
//! a program of their own and run one after the other.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]
#![allow(dead_code, reason = "the helpers are those of another test program")]

#[path = "../proxy/backend.rs"]
mod backend;
#[path = "../proxy/client.rs"]
mod client;
#[path = "../proxy/site.rs"]
mod site;

use std::sync::Arc;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use tokio::sync::{Mutex, Notify};
use weir_vmm::ExitReason;

use crate::backend::Backend;
use crate::client::Client;
use crate::site::{Site, config, ready, until, within};

static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[tokio::test(flavor = "multi_thread")]
async fn large_bodies_that_break_off_leave_none_behind() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let taken = Arc::new(Notify::new());
    let tell = taken.clone();
    // Reads the head, nothing else, and never answers.
    let backend = Backend::start(move |mut connection| {
        let tell = tell.clone();
        async move {
            connection.head().await;
            tell.notify_one();
            std::future::pending::<()>().await;
        }
    })
    .await;
    let site = Site::start(config(), ready(backend.address)).await;
    let begin_large_body = async || {
        let mut client = Client::connect(site.address).await;
        client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10000000\r\n\r\n").await;
        client.send(&"x".repeat(100_000)).await;
        within(taken.notified()).await;
        client
    };
    let none_in_flight = async || until(|| site.metric("weir_http_requests_in_flight") == Some(0.0)).await;
    let mut before = None;
    for _ in 0..6 {
        // The client leaves.
        drop(begin_large_body().await);
        none_in_flight().await;
        // The VM goes.
        let mut client = begin_large_body().await;
        for vm in site.launcher.alive("p") {
            site.launcher.crash(vm, ExitReason::Died("signal 9 (SIGKILL)".into()));
        }
        assert_eq!(client.response().await.status(), 502);
        drop(client);
        none_in_flight().await;
        // The stand-in for the VM keeps its connections; two per round.
        let kept = backend.connections();
        match before {
            None => before = Some(open_descriptors() - kept),
            Some(before) => until(|| open_descriptors() - kept <= before).await,
        }
    }
}

const GET: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";

/// No descriptor beyond those that are open.
fn let_no_more_in() {
    let open = std::fs::read_dir("/proc/self/fd").unwrap();
    let highest =
        open.map(|entry| entry.unwrap().file_name().to_str().unwrap().parse::<u64>().unwrap()).max();
    // Gaps below the highest are filled until nothing more goes in.
    let limit = Rlimit { current: highest.map(|highest| highest + 1), ..getrlimit(Resource::Nofile) };
    setrlimit(Resource::Nofile, limit).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_needs_one_more_gets_an_answer_and_harms_no_vm() {
    let _alone = ONE_AT_A_TIME.lock().await;
    // One answer per connection, so that each request needs a new one.
    let backend = Backend::start(|mut connection| async move {
        connection.request().await;
        connection.send("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n").await;
    })
    .await;
    let site = Site::start(config(), ready(backend.address)).await;
    let mut client = Client::connect(site.address).await;
    client.send(GET).await;
    assert_eq!(client.response().await.status(), 200);

    let_no_more_in();
    let mut fillers = Vec::new();
    while let Ok(filler) = std::fs::File::open("/dev/null") {
        fillers.push(filler);
    }
    client.send(GET).await;
    let response = client.response().await;
    assert_eq!((response.status(), response.header("weir-error")), (500, Some("internal")));

    assert_eq!(weir_proxy::raise_descriptor_limit().unwrap(), getrlimit(Resource::Nofile).current);
    let mut client = Client::connect(site.address).await;
    client.send(GET).await;
    assert_eq!(client.response().await.status(), 200);
    assert_eq!(site.launcher.started().len(), 1, "the vm did nothing wrong");
    assert_eq!(site.metric("weir_http_retries_total"), Some(0.0));
    drop(fillers);
}
