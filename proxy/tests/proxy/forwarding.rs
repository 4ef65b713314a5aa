//! What a VM and a client see of each other.

use crate::backend::Backend;
use crate::client::{Client, ask, header};
use crate::site::{Site, config, line, ready};

/// The head that the VM got for a request with these header lines.
async fn seen(site: &Site, target: &str, lines: &str) -> String {
    let request = format!("GET {target} HTTP/1.1\r\nhost: a.example:81\r\n{lines}\r\n");
    ask(site.address, &request).await.text().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vm_sees_who_asks_and_nothing_of_the_hop() {
    let backend = Backend::echo("vm").await;
    let site = Site::start(config(), ready(backend.address)).await;
    let lines = "connection: close, x-hop\r\nx-hop: 1\r\nkeep-alive: 5\r\nproxy-authorization: Basic\r\n\
                 te: trailers, gzip\r\nupgrade: h2c\r\nhttp2-settings: x\r\nx-kept: 1\r\n\
                 x-forwarded-for: 6.6.6.6\r\nx-forwarded-proto: https\r\nvia: 1.1 other\r\n";
    let head = seen(&site, "/a//b?q=%2F", lines).await;
    assert!(head.starts_with("GET /a//b?q=%2F HTTP/1.1\r\n"), "{head}");
    for (name, value) in [
        ("host", Some("a.example:81")),
        ("x-forwarded-for", Some("6.6.6.6, 127.0.0.1")),
        ("x-forwarded-proto", Some("http")),
        ("x-forwarded-host", Some("a.example:81")),
        ("via", Some("1.1 other, 1.1 weir")),
        ("x-kept", Some("1")),
        ("x-hop", None),
        ("keep-alive", None),
        ("proxy-authorization", None),
        ("te", None),
        ("upgrade", None),
        ("http2-settings", None),
        ("connection", None),
    ] {
        assert_eq!(header(&head, name), value, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_of_http_1_0_without_a_host_gets_one() {
    let backend = Backend::echo("vm").await;
    let site = Site::start(config(), ready(backend.address)).await;
    let response = ask(site.address, "GET / HTTP/1.0\r\n\r\n").await;
    assert_eq!(header(response.text(), "host"), Some(backend.address.to_string().as_str()));
    assert_eq!(header(response.text(), "x-forwarded-host"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn forwarding_headers_cannot_be_taken_out_by_connection() {
    let backend = Backend::echo("vm").await;
    let site = Site::start(config(), ready(backend.address)).await;
    let request = "GET / HTTP/1.1\r\nhost: a\r\nconnection: close, x-forwarded-for\r\n\r\n";
    let response = ask(site.address, request).await;
    assert_eq!((response.status(), response.header("weir-error")), (400, Some("bad_request")));
}

#[tokio::test(flavor = "multi_thread")]
async fn traces_are_continued_or_begun() {
    let backend = Backend::echo("vm").await;
    let site = Site::start(config(), ready(backend.address)).await;
    let given = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let state = "tracestate: a=1,b=2\r\ntracestate: c@d=3\r\nconnection: close\r\n";
    let head = seen(&site, "/1", &format!("traceparent: {given}\r\n{state}")).await;
    assert_eq!(header(&head, "traceparent"), Some(given));
    let states: Vec<_> = head.lines().filter(|line| line.starts_with("tracestate")).collect();
    assert_eq!(states, ["tracestate: a=1,b=2", "tracestate: c@d=3"]);
    // Of no trace, or of more than one: then what is said of the trace is not true of the new one.
    let several = format!("traceparent: {given}\r\ntraceparent: {given}\r\n{state}");
    let head = seen(&site, "/3", &several).await;
    assert_eq!((head.matches("traceparent: ").count(), head.contains(given)), (1, false), "{head}");
    assert!(!head.contains("tracestate"), "{head}");
    let head = seen(&site, "/2", &format!("traceparent: nonsense\r\n{state}")).await;
    assert!(!head.contains("tracestate"), "{head}");
    let begun = header(&head, "traceparent").unwrap().to_owned();
    let (_, log) = site.end().await;
    assert_eq!(line(&log, "/1")["trace_id"], given[3..35]);
    assert_eq!(line(&log, "/2")["trace_id"], begun[3..35]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_absolute_target_reaches_the_vm_in_origin_form() {
    let backend = Backend::echo("vm").await;
    let site = Site::start(config(), ready(backend.address)).await;
    for (given, path) in [("/x?y", "/x?y"), ("", "/"), ("?y", "/?y")] {
        let request =
            format!("GET http://b.example{given} HTTP/1.1\r\nhost: b.example\r\nconnection: close\r\n\r\n");
        let head = ask(site.address, &request).await.text().to_owned();
        assert!(head.starts_with(&format!("GET {path} HTTP/1.1\r\n")), "{head}");
        assert_eq!(header(&head, "host"), Some("b.example"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_sees_nothing_of_the_hop() {
    let backend = Backend::start(|mut connection| async move {
        connection.request().await;
        let lines = "connection: x-hop\r\nx-hop: 1\r\nkeep-alive: timeout=5\r\nproxy-authenticate: Basic\r\n\
                     server: hello\r\nx-kept: 1\r\ncontent-length: 2\r\n";
        connection.send(format!("HTTP/1.1 203 Sure\r\n{lines}\r\nok")).await;
        connection.some().await;
    })
    .await;
    let site = Site::start(config(), ready(backend.address)).await;
    let mut client = Client::connect(site.address).await;
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let response = client.response().await;
    assert_eq!((response.status(), response.text()), (203, "ok"));
    for (name, value) in [
        ("via", Some("1.1 weir")),
        ("server", Some("hello")),
        ("x-kept", Some("1")),
        ("connection", Some("keep-alive")),
        ("x-hop", None),
        ("keep-alive", None),
        ("proxy-authenticate", None),
    ] {
        assert_eq!(response.header(name), value, "{name}: {}", response.head);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn http_1_0_clients_get_no_chunks() {
    let backend = Backend::start(|mut connection| async move {
        connection.request().await;
        connection.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n").await;
        connection.some().await;
    })
    .await;
    let site = Site::start(config(), ready(backend.address)).await;
    let response = ask(site.address, "GET / HTTP/1.0\r\n\r\n").await;
    assert_eq!(response.header("transfer-encoding"), None, "{}", response.head);
    assert_eq!(response.text(), "ok");
}

#[tokio::test(flavor = "multi_thread")]
async fn responses_without_a_body_are_framed_as_such() {
    let backend = Backend::start(|mut connection| async move {
        while let Some((head, _)) = connection.request().await {
            let response = match head.split(' ').nth(1).unwrap() {
                "/head" => "200 OK\r\ncontent-length: 5\r\n\r\n",
                "/head-chunked" => "200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
                "/204" => "204 No Content\r\n\r\n",
                "/304" => "304 Not Modified\r\ncontent-length: 5\r\netag: \"e\"\r\n\r\n",
                "/hints" => {
                    "103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
                }
                _ => "200 OK\r\ncontent-length: 4\r\n\r\nlast",
            };
            connection.send(format!("HTTP/1.1 {response}")).await;
        }
    })
    .await;
    let site = Site::start(config(), ready(backend.address)).await;
    let mut client = Client::connect(site.address).await;
    for (request, status, length) in [
        ("HEAD /head", "200 OK", Some("5")),
        ("HEAD /head-chunked", "200 OK", None),
        ("GET /204", "204 No Content", None),
        ("GET /304", "304 Not Modified", Some("5")),
        ("GET /hints", "103 Early Hints", None),
    ] {
        client.send(&format!("{request} HTTP/1.1\r\nhost: a\r\n\r\n")).await;
        // Whatever came after the head would be taken for the beginning of the next one.
        let head = client.head().await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{request}: {head}");
        assert_eq!(header(&head, "content-length"), length, "{request}: {head}");
    }
    assert_eq!(client.response().await.text(), "ok", "the hints' own response");
    client.send("GET /last HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!(client.response().await.text(), "last");
    assert_eq!(backend.connections(), 1);
}
