//! What clients are shown when they do not get what they asked for: maintenance, pages of errors.

use std::path::{Path, PathBuf};

use crate::actions::routed;
use crate::backend::Backend;
use crate::client::{Client, ask, get};
use crate::site::{Site, line, ready};

/// A directory with pages, and the path of one of them as TOML.
struct Pages(tempfile::TempDir);

impl Pages {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in [("soon.html", "<p>soon"), ("error.txt", "sorry"), ("lost.json", "{}")] {
            std::fs::write(directory.path().join(name), text).unwrap();
        }
        Self(directory)
    }

    fn path(&self, name: &str) -> PathBuf {
        Path::new(self.0.path()).join(name)
    }

    fn quoted(&self, name: &str) -> String {
        format!("{:?}", self.path(name).to_str().unwrap())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_in_maintenance_wakes_nobody() {
    let pages = Pages::new();
    let backend = Backend::echo("vm").await;
    let config = routed(&format!(
        "[[route]]\npool = 'p'\nmaintenance = true\n\
         [[route]]\npath = '/shop'\npool = 'p'\n\
         maintenance = {{ page = {}, status = 500, retry_after = '10m', allow = ['192.0.2.0/24'] }}\n\
         [[route]]\npath = '/mine'\npool = 'p'\nmaintenance = {{ allow = ['127.0.0.0/8'] }}\n\
         [[route]]\npath = '/open'\npool = 'p'\nmaintenance = false\n",
        pages.quoted("soon.html")
    ));
    let site = Site::start(config, ready(backend.address)).await;
    let response = get(site.address, "/").await;
    assert_eq!((response.status(), response.text()), (503, "in maintenance\n"));
    assert_eq!((response.header("weir-error"), response.header("retry-after")), (Some("maintenance"), None));
    let mut client = Client::connect(site.address).await;
    client.send("HEAD /shop HTTP/1.1\r\nhost: a\r\n\r\nGET /shop/x HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert!(client.head().await.to_lowercase().contains("content-length: 7"));
    let response = client.response().await;
    assert_eq!((response.status(), response.text()), (500, "<p>soon"));
    assert_eq!(response.header("content-type"), Some("text/html; charset=utf-8"));
    assert_eq!(response.header("weir-error"), Some("maintenance"));
    assert_eq!(response.header("retry-after"), Some("600"));
    assert!(site.launcher.started().is_empty());
    assert_eq!(get(site.address, "/mine").await.status(), 200);
    assert_eq!(get(site.address, "/open").await.status(), 200);
    let (_, log) = site.end().await;
    assert_eq!(line(&log, "/shop/x")["error"], "maintenance");
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_have_the_route_s_page_or_the_one_of_all_routes() {
    let pages = Pages::new();
    let config = routed(&format!(
        "[error_pages]\n4xx = {lost}\n405 = {soon}\n\
         [[route]]\npath = '/a'\npool = 'p'\nmethods = ['POST']\n\
         [[route]]\npath = '/b'\npool = 'p'\nmethods = ['POST']\nerror_pages = {{ 4xx = {error} }}\n\
         [[route]]\npath = '/c'\nrespond = {{ status = 404, body = 'mine' }}\n",
        lost = pages.quoted("lost.json"),
        soon = pages.quoted("soon.html"),
        error = pages.quoted("error.txt"),
    ));
    let site = Site::start(config, ready(([127, 0, 0, 1], 9).into())).await;
    for (path, status, error, text, kind) in [
        ("/x", 404, Some("no_route"), "{}", "application/json"),
        ("/a", 405, Some("method_not_allowed"), "<p>soon", "text/html; charset=utf-8"),
        ("/b", 405, Some("method_not_allowed"), "sorry", "text/plain; charset=utf-8"),
        ("/c", 404, None, "mine", "text/plain; charset=utf-8"),
    ] {
        let response = get(site.address, path).await;
        assert_eq!((response.status(), response.header("weir-error")), (status, error), "{path}");
        assert_eq!((response.text(), response.header("content-type")), (text, Some(kind)), "{path}");
    }
    assert_eq!(get(site.address, "/a").await.header("allow"), Some("POST"), "it stays");
    // The pages of all routes change with the configuration.
    site.reload(|config| config.error_pages = Default::default()).await;
    assert_eq!(get(site.address, "/x").await.text(), "no route for this host and path\n");
}

/// Answers with the status that the path names, and a body that says nothing.
async fn statuses() -> Backend {
    Backend::start(|mut connection| async move {
        while let Some((head, _)) = connection.request().await {
            let status = head.split(['/', ' ']).nth(2).unwrap_or_default().to_owned();
            let answer = format!(
                "HTTP/1.1 {status} X\r\nwww-authenticate: Basic\r\nx-secret: 1\r\ncontent-length: 5\r\n\r\ntrace"
            );
            let body = if head.starts_with("HEAD") { answer.len() - 5 } else { answer.len() };
            if !connection.send(&answer[..body]).await {
                return;
            }
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vm_s_errors_are_replaced_where_that_is_wanted() {
    let pages = Pages::new();
    let backend = statuses().await;
    let config = routed(&format!(
        "[error_pages]\n5xx = {error}\n401 = {lost}\n\
         [[route]]\npool = 'p'\nintercept_errors = true\nfilter = {{ set_response_headers = {{ x-frame-options = 'DENY' }} }}\n\
         [[route]]\nhost = 'plain.example'\npool = 'p'\n",
        error = pages.quoted("error.txt"),
        lost = pages.quoted("lost.json"),
    ));
    let site = Site::start(config, ready(backend.address)).await;
    for (path, text) in
        [("500", "sorry"), ("401", "{}"), ("404", "trace"), ("200", "trace"), ("503", "sorry")]
    {
        let response = get(site.address, &format!("/{path}")).await;
        assert_eq!((response.status().to_string().as_str(), response.text()), (path, text));
        let is_page = text != "trace";
        assert_eq!(response.header("www-authenticate"), Some("Basic"), "{path}");
        assert_eq!(response.header("x-secret").is_none(), is_page, "{path}");
        assert_eq!((response.header("x-frame-options"), response.header("weir-error")), (Some("DENY"), None));
    }
    let mut client = Client::connect(site.address).await;
    client.send("HEAD /500 HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let head = client.head().await.to_lowercase();
    assert!(head.contains("content-length: 5") && head.contains("connection: close"), "{head}");
    assert!(client.is_at_end().await);
    let put = "PUT /500 HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello";
    assert_eq!(ask(site.address, put).await.text(), "sorry");
    let plain = ask(site.address, "GET /500 HTTP/1.1\r\nhost: plain.example\r\n\r\n").await;
    assert_eq!((plain.status(), plain.text()), (500, "trace"));
    // It is not the VM's fault, and nobody is asked twice.
    assert_eq!(site.launcher.started().len(), 1);
    assert_eq!(site.metric("weir_http_retries_total"), Some(0.0));
    let (_, log) = site.end().await;
    let found = line(&log, "/500");
    assert_eq!((&found["status"], &found["error"]), (&500.into(), &serde_json::Value::Null));
}

#[tokio::test(flavor = "multi_thread")]
async fn http2_clients_see_the_same_pages() {
    use crate::frames::{END_HEADERS, END_STREAM, Frames, HEADERS, block, frame, pseudo};
    let pages = Pages::new();
    let backend = statuses().await;
    let routes = format!(
        "[[route]]\npool = 'p'\nintercept_errors = true\nerror_pages = {{ 5xx = {} }}\n\
         [[route]]\npath = '/shop'\npool = 'p'\nmaintenance = {{ page = {}, status = 404 }}\n",
        pages.quoted("error.txt"),
        pages.quoted("soon.html")
    );
    let config = weir_config::Config { listeners: crate::http2::knowing().listeners, ..routed(&routes) };
    let site = Site::start(config, ready(backend.address)).await;
    let mut frames = Frames::connect(site.address).await;
    let asked = [("GET", "/shop"), ("HEAD", "/shop"), ("GET", "/500"), ("HEAD", "/500"), ("GET", "/200")];
    let answers: [(u16, &[u8]); 5] =
        [(404, b"<p>soon"), (404, b""), (500, b"sorry"), (500, b""), (200, b"trace")];
    for (stream, ((method, path), (status, body))) in (1..).step_by(2).zip(asked.into_iter().zip(answers)) {
        let request = block(&pseudo(method, path));
        frames.send(&frame(HEADERS, END_HEADERS | END_STREAM, stream, &request)).await;
        let (found, text) = frames.outcome(stream).await;
        assert_eq!((found, text.as_slice()), (Some(status), body), "{method} {path}");
    }
}
