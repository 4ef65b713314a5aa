//! A process without descriptors left. The limit is the process's, so this test is one of its own.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]
#![allow(dead_code, reason = "the helpers are those of another test program")]

#[path = "../proxy/backend.rs"]
mod backend;
#[path = "../proxy/client.rs"]
mod client;
#[path = "../proxy/site.rs"]
mod site;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::backend::Backend;
use crate::client::Client;
use crate::site::{Site, config, ready};

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
