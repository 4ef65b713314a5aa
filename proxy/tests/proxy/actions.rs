//! What a route does besides sending requests to a pool as they are.

use std::sync::Arc;

use weir_config::model::{Config, HostPattern, Route};
use weir_pool::fake::{Boot, Script};

use crate::backend::Backend;
use crate::client::{Client, ask, get};
use crate::site::{Site, config, line, ready, until};

/// A site's configuration with these routes and pages, written as in a file; the pool is `p`.
pub(crate) fn routed(routes: &str) -> Config {
    let text = format!("[[listener]]\naddress = '127.0.0.1:0'\n[pool.p]\nimage = 'hello'\n{routes}");
    let parsed = weir_config::parse(&text, "test").unwrap_or_else(|errors| panic!("{errors}"));
    Config { routes: parsed.routes, error_pages: parsed.error_pages, ..config() }
}

fn no_vm() -> Script {
    Script::boot(Boot::Silent)
}

#[tokio::test(flavor = "multi_thread")]
async fn fixed_answers_wake_no_pool() {
    let config = routed(
        "[[route]]\npath = '/up'\nrespond = { body = 'fine', headers = { 'x-a' = 'b' } }\n\
         [[route]]\npath = '/gone'\nrespond = { status = 410, headers = { 'content-type' = 'text/css' } }\n\
         [[route]]\npath = '/empty'\nrespond = { status = 204 }\n",
    );
    let site = Site::start(config, no_vm()).await;
    let mut client = Client::connect(site.address).await;
    client.send("GET /up HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let response = client.response().await;
    assert_eq!((response.status(), response.text()), (200, "fine"));
    assert_eq!(response.header("content-type"), Some("text/plain; charset=utf-8"));
    assert_eq!((response.header("x-a"), response.header("weir-error")), (Some("b"), None));
    // The same connection goes on; an answer to HEAD has no body.
    client.send("HEAD /up HTTP/1.1\r\nhost: a\r\n\r\nGET /gone HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert!(client.head().await.to_lowercase().contains("content-length: 4"));
    let response = client.response().await;
    assert_eq!((response.status(), response.text()), (410, ""));
    assert_eq!(response.header("content-type"), Some("text/css"));
    client.send("GET /empty HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let head = client.head().await;
    assert!(head.starts_with("HTTP/1.1 204 ") && !head.to_lowercase().contains("content-length"), "{head}");
    let series = r#"weir_http_requests_total{code="200",pool="",route="*/up"}"#;
    until(|| site.metric(series) == Some(2.0)).await;
    assert!(site.launcher.started().is_empty());
    let (_, log) = site.end().await;
    let gone = line(&log, "/gone");
    assert_eq!((&gone["route"], &gone["pool"]), (&"*/gone".into(), &serde_json::Value::Null));
}

#[tokio::test(flavor = "multi_thread")]
async fn redirects_name_the_place() {
    let config = routed(
        "[[route]]\nredirect = { to = 'https://{host}{path}{query}' }\n\
         [[route]]\npath = '/old'\nredirect = { to = '/new', status = 302 }\n",
    );
    let site = Site::start(config, no_vm()).await;
    let response = get(site.address, "/a%20b?c=d").await;
    let location = response.header("location");
    assert_eq!((response.status(), location), (308, Some("https://a.example/a%20b?c=d")));
    let response = get(site.address, "/old/x").await;
    assert_eq!((response.status(), response.header("location")), (302, Some("/new")));
    let response = ask(site.address, "GET / HTTP/1.0\r\n\r\n").await;
    assert_eq!((response.status(), response.header("weir-error")), (400, Some("bad_request")));
    assert!(site.launcher.started().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn other_methods_are_told_which_there_are() {
    let backend = Backend::echo("vm").await;
    let config = routed(
        "[[route]]\nname = 'r'\npool = 'p'\nmethods = ['GET', 'HEAD']\n\
         [[route]]\npath = '/hook'\nmethods = ['POST']\nrespond = { status = 202 }\n",
    );
    let site = Site::start(config, ready(backend.address)).await;
    assert_eq!(get(site.address, "/name").await.text(), "vm");
    let request = "PUT / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\nconnection: close\r\n\r\nx";
    let response = ask(site.address, request).await;
    assert_eq!((response.status(), response.header("allow")), (405, Some("GET, HEAD")));
    assert_eq!(response.header("weir-error"), Some("method_not_allowed"));
    let response = get(site.address, "/hook").await;
    assert_eq!((response.status(), response.header("allow")), (405, Some("POST")));
    // Methods are case-sensitive.
    assert_eq!(ask(site.address, "get / HTTP/1.1\r\nhost: a\r\n\r\n").await.status(), 405);
    let refusals = |route: &str| {
        site.metric(&format!(r#"weir_filter_refusals_total{{reason="method_not_allowed",route="{route}"}}"#))
    };
    assert_eq!((refusals("r"), refusals("*/hook")), (Some(2.0), Some(1.0)));
    assert_eq!(backend.connections(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vm_gets_the_rewritten_path() {
    let backend = Backend::echo("vm").await;
    let config = routed(
        "[[route]]\npath = '/api'\npool = 'p'\nrewrite = { prefix = '/v2' }\n\
         [[route]]\npool = 'p'\nrewrite = { regex = '^/(.)x(.)$', to = '/$1$2' }\n",
    );
    let site = Site::start(config, ready(backend.address)).await;
    for (target, expected) in [
        ("/api/x?y=/api", "GET /v2/x?y=/api HTTP/1.1"),
        ("//%61pi//x", "GET /v2/x HTTP/1.1"),
        ("http://a.example/api", "GET /v2 HTTP/1.1"),
        ("/axb?q", "GET /ab?q HTTP/1.1"),
        ("/other", "GET /other HTTP/1.1"),
    ] {
        let response = get(site.address, target).await;
        assert_eq!(response.text().lines().next(), Some(expected), "{target}");
    }
    // Two dots that only the rewrite brings together.
    let response = get(site.address, "/.x.").await;
    assert_eq!((response.status(), response.header("weir-error")), (400, Some("bad_request")));
    // The log has what the client asked for.
    let (_, log) = site.end().await;
    assert_eq!(line(&log, "/api/x?y=/api")["route"], "*/api");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_catch_all_to_a_pool_and_an_answer_of_one_host_live_together() {
    let backend = Backend::echo("vm").await;
    let mut config = routed("[[route]]\nhost = 'a.example'\nrespond = { status = 418 }\n");
    config.routes.push(Arc::new(Route::to_pool("all", HostPattern::Any, "/", "p")));
    let site = Site::start(config, ready(backend.address)).await;
    assert_eq!(get(site.address, "/name").await.status(), 418);
    let other = ask(site.address, "GET /name HTTP/1.1\r\nhost: b.example\r\n\r\n").await;
    assert_eq!(other.text(), "vm");
}

#[tokio::test(flavor = "multi_thread")]
async fn header_fields_choose_among_routes_of_one_path() {
    let config = routed(
        "[[route]]\npath = '/api'\nrespond = { body = 'plain' }\n\
         [[route]]\nname = 'v2'\npath = '/api'\nheaders = { x-api = 'v2' }\nrespond = { body = 'v2' }\n\
         [[route]]\nname = 'bot'\npath = '/api'\nheaders = { user-agent = { regex = '(?i)bot\\b' }, x-api = { regex = '^v' } }\nrespond = { body = 'bot' }\n\
         [[route]]\nname = 'beta'\npath = '/api/new'\nheaders = { x-beta = '1' }\nrespond = { body = 'beta' }\n",
    );
    let site = Site::start(config, no_vm()).await;
    for (path, fields, expected) in [
        ("/api", "", "plain"),
        ("/api", "x-api: v2\r\n", "v2"),
        ("/api/x", "X-Api: v1\r\nX-Api:  v2 \r\n", "v2"),
        ("/api", "x-api: V2\r\n", "plain"),
        ("/api", "x-api: v22\r\n", "plain"),
        // The first that fits.
        ("/api", "x-api: v2\r\nuser-agent: Robot/1\r\n", "v2"),
        ("/api", "x-api: v3\r\nuser-agent: RoBOT/1\r\n", "bot"),
        ("/api", "x-api: v3\r\nuser-agent: robots/1\r\n", "plain"),
        ("/api", "user-agent: robot\r\n", "plain"),
        // Where none fits, a shorter path is asked.
        ("/api/new", "x-beta: 1\r\n", "beta"),
        ("/api/new", "x-beta: 2\r\nx-api: v2\r\n", "v2"),
        ("/api/new", "x-beta: \u{e4}\r\n", "plain"),
    ] {
        let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n{fields}\r\n");
        assert_eq!(ask(site.address, &request).await.text(), expected, "{path} {fields}");
    }
}
