//! Route choice, and what weir answers itself.

use weir_config::model::HostPattern;
use weir_pool::fake;

use crate::backend::Backend;
use crate::client::{Client, ask, get};
use crate::site::{Site, config, line, ready, route, until};

#[tokio::test(flavor = "multi_thread")]
async fn host_and_path_choose_the_pool() {
    let (one, two) = (Backend::echo("one").await, Backend::echo("two").await);
    let mut config = fake::config([fake::pool("one"), fake::pool("two")]);
    config.routes = vec![
        route("exact", HostPattern::Exact("a.example".into()), "/", "one"),
        route("wild", HostPattern::Suffix("example".into()), "/name", "two"),
    ];
    // The order in which the first requests come is the order in which the VMs start.
    let site = Site::start(config, ready(two.address)).await;
    site.launcher.script_next(ready(one.address));
    let name = async |host: &str, target: &str| {
        ask(site.address, &format!("GET {target} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n"))
            .await
    };
    assert_eq!(name("A.example:80", "/name").await.text(), "one");
    assert_eq!(name("b.example", "/name").await.text(), "two");
    assert_eq!(name("a.example", "http://a.example/name").await.text(), "one");

    let response = name("b.example", "/other").await;
    assert_eq!((response.status(), response.header("weir-error")), (404, Some("no_route")));
    assert_eq!(name("example", "/name").await.status(), 404);
    let (_, log) = site.end().await;
    let absolute = line(&log, "http://a.example/name");
    assert_eq!((&absolute["route"], &absolute["host"]), (&"exact".into(), &"a.example".into()));
    let lost = line(&log, "/other");
    assert_eq!((&lost["error"], &lost["route"]), (&"no_route".into(), &serde_json::Value::Null));
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_without_sense_are_refused() {
    let backend = Backend::echo("vm").await;
    let site = Site::start(config(), ready(backend.address)).await;
    let requests = [
        "GET /a/../b HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET /a/%2e%2E%2fb HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a b\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nhost: a\r\n\r\n",
        "CONNECT b.example:443 HTTP/1.1\r\nhost: b.example:443\r\n\r\n",
        "CONNECT / HTTP/1.1\r\nhost: a\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4, 4\r\n\r\nbody",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\ncontent-length: 4\r\n\r\nbody",
        // These pingora refuses before any hook.
        "GET http://a.example/ HTTP/1.1\r\nhost: b.example\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nbad header\r\n\r\n",
        "\x16\x03\x01 no http at all\r\n\r\n",
    ];
    for request in requests {
        let response = ask(site.address, request).await;
        assert_eq!(
            (response.status(), response.header("weir-error")),
            (400, Some("bad_request")),
            "{request}"
        );
        assert_eq!(response.header("server"), None, "{request}");
    }
    assert_eq!(backend.connections(), 0);
    let series = r#"weir_http_requests_total{code="400",pool="",route=""}"#;
    until(|| site.metric(series) == Some(requests.len() as f64)).await;
    let (_, log) = site.end().await;
    assert_eq!(log.len(), requests.len());
    assert!(
        log.iter().all(|line| line["error"] == "bad_request" && line["client"] == "127.0.0.1"),
        "{log:#?}"
    );
}

// A VM that reads nothing of a header larger than the buffers holds the request up, and is taken for broken.
#[tokio::test(flavor = "multi_thread")]
async fn a_header_too_large_to_send_on_reaches_no_vm() {
    let backend = Backend::echo("vm").await;
    let site = Site::start(config(), ready(backend.address)).await;
    let request = |size: usize| {
        format!("GET /name HTTP/1.1\r\nhost: a\r\nconnection: close\r\nx: {}\r\n\r\n", "y".repeat(size))
    };
    assert_eq!(ask(site.address, &request(31 * 1024)).await.text(), "vm");
    let response = ask(site.address, &request(33 * 1024)).await;
    assert_eq!((response.status(), response.header("weir-error")), (431, Some("header_too_large")));
    assert_eq!(backend.connections(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vm_s_own_400_is_its_own_and_nonsense_on_a_kept_connection_is_refused() {
    let backend = Backend::start(|mut connection| async move {
        while connection.request().await.is_some() {
            connection.send("HTTP/1.1 400 Bad Request\r\nserver: vm\r\ncontent-length: 0\r\n\r\n").await;
        }
    })
    .await;
    let site = Site::start(config(), ready(backend.address)).await;
    let mut client = Client::connect(site.address).await;
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let response = client.response().await;
    assert_eq!((response.header("weir-error"), response.header("server")), (None, Some("vm")));
    client.send("nonsense\r\n\r\n").await;
    assert_eq!(client.response().await.header("weir-error"), Some("bad_request"));
    assert!(client.is_at_end().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_keep_the_connection_and_head_has_no_body() {
    let mut config = config();
    config.routes.clear();
    let site = Site::start(config, fake::Script::boot(fake::Boot::Silent)).await;
    let mut client = Client::connect(site.address).await;
    client.send("HEAD / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert!(client.head().await.contains("weir-error: no_route"));
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let response = client.response().await;
    assert_eq!((response.status(), response.text()), (404, "no route for this host and path\n"));
    // A request is counted when it has ended, which is after its answer.
    let series = r#"weir_http_requests_total{code="404",pool="",route=""}"#;
    until(|| site.metric(series) == Some(2.0)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_early_answer_reaches_a_client_that_still_sends() {
    let mut config = config();
    config.routes.clear();
    let site = Site::start(config, fake::Script::boot(fake::Boot::Silent)).await;
    let mut client = Client::connect(site.address).await;
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 100000\r\n\r\n").await;
    for _ in 0..10 {
        client.send(&"x".repeat(10_000)).await;
    }
    let response = client.response().await;
    assert_eq!(response.status(), 404);
    assert_eq!(response.header("connection"), Some("close"));
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_bytes_make_well_formed_log_lines() {
    let backend = Backend::echo("vm").await;
    let site = Site::start(config(), ready(backend.address)).await;
    for path in ["/\"},{\"status\":1", "/\\u0000\\n%0a", "/\u{1F600}", "/a|b^c"] {
        get(site.address, path).await;
    }
    let (_, log) = site.end().await;
    assert_eq!(log.len(), 4, "{log:#?}");
    assert!(log.iter().all(|line| line["method"] == "GET" && line["trace_id"].as_str().unwrap().len() == 32));
    assert_eq!(line(&log, "/\"},{\"status\":1")["status"], 200);
}
