//! Copies of requests for another pool.

use tokio::sync::mpsc;
use weir_config::model::Config;
use weir_pool::fake::Script;

use crate::backend::Backend;
use crate::client::{ask, get, header};
use crate::site::{Site, ready, until, within};
use crate::split::with_servers;

/// A server that tells what it is asked; it answers all but `/silent`.
async fn told() -> (Backend, mpsc::UnboundedReceiver<(String, Vec<u8>)>) {
    let (tell, told) = mpsc::unbounded_channel();
    let backend = Backend::start(move |mut connection| {
        let tell = tell.clone();
        async move {
            while let Some((head, body)) = connection.request().await {
                let is_silent = head.starts_with("GET /silent ");
                tell.send((head, body)).unwrap();
                if !is_silent && !connection.answer(b"never seen").await {
                    return;
                }
            }
        }
    })
    .await;
    (backend, told)
}

fn nobody() -> Script {
    ready(([127, 0, 0, 1], 9).into())
}

fn mirrored(more: &str, own: &Backend, mirror: &Backend) -> Config {
    let routes = format!("[[route]]\nname = 'r'\npool = 'q'\nmirror = {{ pool = 'm', {more} }}\n");
    with_servers(&routes, &[("q", own), ("m", mirror)])
}

fn count(site: &Site, result: &str) -> Option<f64> {
    site.metric(&format!(r#"weir_mirror_requests_total{{result="{result}",route="r"}}"#))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_is_what_the_vm_gets_and_its_answer_is_nobodys() {
    let own = Backend::echo("own").await;
    let (mirror, mut told) = told().await;
    let site = Site::start(mirrored("wake = true", &own, &mirror), nobody()).await;
    let request = "POST /a?b HTTP/1.1\r\nhost: a.example\r\nconnection: close\r\n";
    for framed in [
        "content-length: 5\r\n\r\nhello",
        "transfer-encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n",
    ] {
        let response = ask(site.address, &format!("{request}{framed}")).await;
        assert!(response.text().starts_with("POST /a?b "), "{}", response.text());
        assert!(!response.text().contains("weir-mirror"));
        let (head, body) = within(told.recv()).await.unwrap();
        assert!(head.starts_with("POST /a?b HTTP/1.1\r\n"), "{head}");
        assert_eq!((header(&head, "weir-mirror"), header(&head, "content-length")), (Some("1"), Some("5")));
        assert_eq!(
            (header(&head, "transfer-encoding"), header(&head, "x-forwarded-for")),
            (None, Some("127.0.0.1"))
        );
        assert_eq!(body, b"hello");
    }
    assert_eq!(get(site.address, "/name").await.text(), "own");
    let (head, _) = within(told.recv()).await.unwrap();
    assert_eq!((header(&head, "content-length"), header(&head, "host")), (None, Some("a.example")));
    until(|| count(&site, "answered") == Some(3.0)).await;
    // It is no request of a client's.
    until(|| site.metric(r#"weir_http_requests_total{code="200",pool="q",route="r"}"#) == Some(3.0)).await;
    assert_eq!(site.metric(r#"weir_http_requests_total{code="200",pool="m""#), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_for_a_mirror_that_does_not_answer_and_it_gets_no_more() {
    let own = Backend::echo("own").await;
    let (mirror, mut told) = told().await;
    let site =
        Site::start(mirrored("wake = true, max_in_flight = 1, timeout = '1h'", &own, &mirror), nobody())
            .await;
    assert_eq!(get(site.address, "/silent").await.status(), 200);
    within(told.recv()).await.unwrap();
    assert_eq!(get(site.address, "/name").await.text(), "own");
    assert_eq!((count(&site, "busy"), count(&site, "answered")), (Some(1.0), None));
    drop(mirror);
    assert!(told.try_recv().is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_takes_too_long_is_given_up() {
    let own = Backend::echo("own").await;
    let (mirror, _told) = told().await;
    let site =
        Site::start(mirrored("wake = true, max_in_flight = 1, timeout = '100ms'", &own, &mirror), nobody())
            .await;
    assert_eq!(get(site.address, "/silent").await.status(), 200);
    until(|| count(&site, "timed_out") == Some(1.0)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_is_not_copied_and_no_vm_is_woken() {
    let (own, vm) = (Backend::echo("own").await, Backend::echo("vm").await);
    let routes = "[[route]]\nname = 'r'\npool = 'q'\nmirror = { pool = 'p', max_body = '4B' }\n";
    let site = Site::start(with_servers(routes, &[("q", &own)]), ready(vm.address)).await;
    let post = |body: &str| {
        let length = body.len();
        format!("POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}")
    };
    assert!(ask(site.address, &post("12345")).await.text().ends_with("12345"));
    until(|| count(&site, "no_body") == Some(1.0)).await;
    assert!(ask(site.address, &post("1234")).await.text().ends_with("1234"));
    until(|| count(&site, "no_vm") == Some(1.0)).await;
    assert!(site.launcher.started().is_empty());
}
