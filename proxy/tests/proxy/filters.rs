//! Which requests a route lets through.

use bytes::Bytes;
use tokio::net::TcpStream;
use weir_config::model::Config;

use crate::actions::routed;
use crate::backend::Backend;
use crate::client::{Client, Response, ask, header};
use crate::http2::knowing;
use crate::site::{Site, line, ready, until, within};

/// A route `r` to the pool with this filter, behind proxies on loopback.
fn filtered(filter: &str) -> Config {
    let mut config = routed(&format!("[[route]]\nname = 'r'\npool = 'p'\n[route.filter]\n{filter}\n"));
    config.host.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    config
}

async fn from(site: &Site, client: &str) -> Response {
    let request =
        format!("GET /name HTTP/1.1\r\nhost: a\r\nx-forwarded-for: {client}\r\nconnection: close\r\n\r\n");
    ask(site.address, &request).await
}

fn refusals(site: &Site, reason: &str) -> Option<f64> {
    site.metric(&format!(r#"weir_filter_refusals_total{{reason="{reason}",route="r"}}"#))
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_are_allowed_and_denied() {
    let backend = Backend::echo("vm").await;
    let config =
        filtered("allow = ['192.0.2.0/24', '2001:db8::/32']\ndeny = ['192.0.2.6', '2001:db8:6::/48']");
    let site = Site::start(config, ready(backend.address)).await;
    for client in ["192.0.2.6", "198.51.100.1", "192.0.2.1, 192.0.2.6", "2001:db8:6::1", "::ffff:192.0.2.6"] {
        let response = from(&site, client).await;
        assert_eq!(
            (response.status(), response.header("weir-error")),
            (403, Some("address_denied")),
            "{client}"
        );
    }
    assert!(site.launcher.started().is_empty());
    for client in ["192.0.2.1", "192.0.2.6, 192.0.2.1", "2001:db8::1", "192.0.2.1:4711, 127.0.0.9"] {
        assert_eq!(from(&site, client).await.text(), "vm", "{client}");
    }
    assert_eq!(refusals(&site, "address_denied"), Some(5.0));
    let (_, log) = site.end().await;
    let clients: Vec<_> = log.iter().map(|line| line["client"].as_str().unwrap()).collect();
    assert!(clients.contains(&"198.51.100.1") && !clients.contains(&"127.0.0.1"), "{clients:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_no_trusted_proxy_speaks_for_itself() {
    let backend = Backend::echo("vm").await;
    let mut config = filtered("deny = ['127.0.0.1']");
    config.host.trusted_proxies = vec!["127.0.0.2".parse().unwrap()];
    let site = Site::start(config, ready(backend.address)).await;
    assert_eq!(from(&site, "192.0.2.1").await.status(), 403);
    assert!(site.launcher.started().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_are_limited_by_their_length_and_as_they_come() {
    // Takes whatever comes, and answers when it has seen the end.
    let backend = Backend::start(|mut connection| async move {
        while connection.head().await.is_some() {
            let mut body = Vec::new();
            while !body.ends_with(b"0\r\n\r\n") && !body.ends_with(b"END") {
                let Some(more) = connection.some().await else { return };
                body.extend(more);
            }
            connection.answer(b"taken").await;
        }
    })
    .await;
    let site = Site::start(filtered("max_body = '1000B'"), ready(backend.address)).await;
    let body = |length: usize| format!("{}END", "x".repeat(length - 3));
    let with_length = |length: usize| {
        format!("POST /length HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n\r\n{}", body(length))
    };
    let response = ask(site.address, &with_length(1001)).await;
    assert_eq!((response.status(), response.header("weir-error")), (413, Some("body_too_large")));
    let huge = format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n", u64::MAX);
    assert!(matches!(ask(site.address, &huge).await.status(), 400 | 413));
    assert!(site.launcher.started().is_empty());
    assert_eq!(ask(site.address, &with_length(1000)).await.text(), "taken");

    let chunked = |lengths: &[usize]| {
        let chunks = lengths.iter().map(|length| format!("{length:x}\r\n{}\r\n", "x".repeat(*length)));
        let chunks: String = chunks.collect();
        format!("POST /chunks HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n{chunks}0\r\n\r\n")
    };
    assert_eq!(ask(site.address, &chunked(&[500, 500])).await.text(), "taken");
    let response = ask(site.address, &chunked(&[500, 501])).await;
    assert_eq!((response.status(), response.header("weir-error")), (413, Some("body_too_large")));
    // The VM is not to blame.
    assert_eq!(ask(site.address, &with_length(1000)).await.text(), "taken");
    assert_eq!(site.launcher.started().len(), 1);
    assert!(refusals(&site, "body_too_large") >= Some(2.0));
    let (_, log) = site.end().await;
    assert!(
        log.iter().any(|line| line["path"] == "/chunks" && line["error"] == "body_too_large"),
        "{log:#?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_are_limited() {
    let backend = Backend::echo("vm").await;
    let site = Site::start(filtered("max_header = '1KiB'"), ready(backend.address)).await;
    let header = |length: usize| {
        format!("GET /name HTTP/1.1\r\nhost: a\r\nconnection: close\r\nx: {}\r\n\r\n", "y".repeat(length))
    };
    assert_eq!(ask(site.address, &header(900)).await.text(), "vm");
    let response = ask(site.address, &header(1024)).await;
    assert_eq!((response.status(), response.header("weir-error")), (431, Some("header_too_large")));
    assert_eq!(refusals(&site, "header_too_large"), Some(1.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_client_s_requests_leave_room_for_others() {
    // Never answers `/hold`, and everything else.
    let backend = Backend::start(|mut connection| async move {
        while let Some((head, _)) = connection.request().await {
            if !head.starts_with("GET /hold ") {
                connection.answer(b"vm").await;
            }
        }
    })
    .await;
    let site = Site::start(filtered("max_in_flight_per_client = 2"), ready(backend.address)).await;
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut client = Client::connect(site.address).await;
        client.send("GET /hold HTTP/1.1\r\nhost: a\r\nx-forwarded-for: 2001:db8::1\r\n\r\n").await;
        held.push(client);
        let series = "weir_http_requests_in_flight";
        until(|| site.metric(series) == Some(held.len() as f64)).await;
    }
    // A /64 is one client.
    let response = from(&site, "2001:db8::2").await;
    assert_eq!((response.status(), response.header("weir-error")), (429, Some("too_many_in_flight")));
    assert_eq!(response.header("retry-after"), Some("1"));
    assert_eq!(from(&site, "2001:db8:1::1").await.text(), "vm");
    assert_eq!(refusals(&site, "too_many_in_flight"), Some(1.0));
    drop(held);
    until(|| site.metric("weir_http_requests_in_flight") == Some(0.0)).await;
    assert_eq!(from(&site, "2001:db8::1").await.text(), "vm");
    let (_, log) = site.end().await;
    assert_eq!(line(&log, "/hold")["error"], "client_gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_are_edited_both_ways() {
    // Sends its request's head back as the body, and headers of its own.
    let backend = Backend::start(|mut connection| async move {
        while let Some((head, _)) = connection.request().await {
            let answer = format!(
                "HTTP/1.1 200 OK\r\nserver: secret\r\nx-kept: 1\r\ncontent-length: {}\r\n\r\n{head}",
                head.len()
            );
            connection.send(answer).await;
        }
    })
    .await;
    let config = routed(
        "[[route]]\npool = 'p'\n[route.filter]\n\
         set_request_headers = { x-via = 'weir', x-forwarded-proto = 'https' }\n\
         add_request_headers = { accept = 'b' }\nremove_request_headers = ['x-secret', 'traceparent']\n\
         remove_response_headers = ['server']\nset_response_headers = { x-kept = '2' }\n\
         add_response_headers = { strict-transport-security = 'max-age=1' }\n\
         [[route]]\npath = '/up'\nrespond = {}\nfilter.set_response_headers = { x-a = 'b' }\n",
    );
    let site = Site::start(config, ready(backend.address)).await;
    let request =
        "GET / HTTP/1.1\r\nhost: a\r\nx-via: evil\r\nx-secret: s\r\naccept: a\r\nconnection: close\r\n\r\n";
    let response = ask(site.address, request).await;
    let seen = response.text().to_lowercase();
    for line in ["x-via: weir", "x-forwarded-proto: https", "accept: a", "accept: b"] {
        assert_eq!(seen.lines().filter(|other| *other == line).count(), 1, "{line} in {seen}");
    }
    for gone in ["evil", "x-secret", "traceparent"] {
        assert!(!seen.contains(gone), "{gone} in {seen}");
    }
    assert_eq!((response.header("server"), response.header("x-kept")), (None, Some("2")));
    assert_eq!(response.header("strict-transport-security"), Some("max-age=1"));
    let response = ask(site.address, "GET /up HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!(response.header("x-a"), Some("b"));
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_other_origins_do_what_they_may() {
    let backend = Backend::echo("vm").await;
    let config = routed(
        "[[route]]\npool = 'p'\nmethods = ['GET']\n[route.filter]\ndeny = ['127.0.0.2']\n\
         [route.cors]\norigins = ['https://app.example']\nmethods = ['GET']\nheaders = ['x-a']\n",
    );
    let site = Site::start(config, ready(backend.address)).await;
    let preflight = |origin: &str| {
        format!(
            "OPTIONS /x HTTP/1.1\r\nhost: a\r\norigin: {origin}\r\naccess-control-request-method: GET\r\n\
             access-control-request-headers: x-a\r\n\r\n"
        )
    };
    let mut client = Client::connect(site.address).await;
    client.send(&preflight("https://app.example")).await;
    let head = client.head().await;
    assert!(head.starts_with("HTTP/1.1 204 "), "{head}");
    let allowed = |head: &str| header(head, "access-control-allow-origin").map(str::to_owned);
    assert_eq!(allowed(&head).as_deref(), Some("https://app.example"));
    assert_eq!(header(&head, "access-control-allow-headers"), Some("x-a"));
    client.send(&preflight("https://evil.example")).await;
    assert_eq!(allowed(&client.head().await), None);
    // Another OPTIONS is no question of a browser, and no method of this route.
    client.send("OPTIONS / HTTP/1.1\r\nhost: a\r\norigin: https://app.example\r\n\r\n").await;
    assert_eq!(client.response().await.status(), 405);
    assert!(site.launcher.started().is_empty());
    client.send("GET /name HTTP/1.1\r\nhost: a\r\norigin: https://app.example\r\n\r\n").await;
    let response = client.response().await;
    assert_eq!((response.text(), response.header("vary")), ("vm", Some("origin")));
    assert_eq!(response.header("access-control-allow-origin"), Some("https://app.example"));
}

/// The status and the fields that matter of an HTTP/2 request with this body, of which the length is told or not.
async fn ask_http2(
    site: &Site,
    target: &str,
    told: Option<usize>,
    body: &'static [u8],
) -> [Option<String>; 3] {
    let socket = TcpStream::connect(site.address).await.unwrap();
    let (requests, connection) = within(h2::client::handshake(socket)).await.unwrap();
    let connection = tokio::spawn(connection);
    let mut requests = within(requests.ready()).await.unwrap();
    let mut request = http::Request::post(format!("http://a.example{target}"));
    if let Some(length) = told {
        request = request.header("content-length", length);
    }
    let (response, mut stream) = requests.send_request(request.body(()).unwrap(), false).unwrap();
    // A stream that was answered already takes no more.
    let _ = stream.send_data(Bytes::from_static(body), true);
    let response = within(response).await.unwrap();
    connection.abort();
    let field = |name: &str| Some(response.headers().get(name)?.to_str().unwrap().to_owned());
    [Some(response.status().as_str().to_owned()), field("weir-error"), field("location")]
}

#[tokio::test(flavor = "multi_thread")]
async fn http2_is_held_to_the_same() {
    // Takes a whole body of chunks.
    let backend = Backend::start(|mut connection| async move {
        while let Some(head) = connection.head().await {
            let mut body = Vec::new();
            while header(&head, "transfer-encoding").is_some() && !body.ends_with(b"0\r\n\r\n") {
                let Some(more) = connection.some().await else { return };
                body.extend(more);
            }
            connection.answer(b"taken").await;
        }
    })
    .await;
    let routes = routed(
        "[[route]]\nname = 'r'\npool = 'p'\n[route.filter]\nmax_body = '1000B'\n\
         [[route]]\npath = '/go'\nredirect = { to = 'https://{host}{path}{query}' }\n",
    );
    let config = Config { routes: routes.routes, ..knowing() };
    let site = Site::start(config, ready(backend.address)).await;
    let is = |text: &str| Some(text.to_owned());
    let location = is("https://a.example/go?x");
    assert_eq!(ask_http2(&site, "/go?x", None, b"").await, [is("308"), None, location]);
    let refused = [is("413"), is("body_too_large"), None];
    assert_eq!(ask_http2(&site, "/", Some(1001), &[b'x'; 1001]).await, refused);
    assert!(site.launcher.started().is_empty());
    assert_eq!(ask_http2(&site, "/", None, &[b'x'; 1001]).await, refused);
    assert_eq!(ask_http2(&site, "/", None, &[b'x'; 1000]).await, [is("200"), None, None]);
    assert_eq!(refusals(&site, "body_too_large"), Some(2.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_list_is_read_again_when_it_changes() {
    let backend = Backend::echo("vm").await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("blocked");
    std::fs::write(&path, "# none of ours\n192.0.2.0/24\n").unwrap();
    let config =
        filtered(&format!("allow = ['192.0.2.0/24', '2001:db8::/32']\nblock_list = '{}'", path.display()));
    let site = Site::start(config, ready(backend.address)).await;
    let response = from(&site, "192.0.2.6").await;
    assert_eq!((response.status(), response.header("weir-error")), (403, Some("address_denied")));
    assert_eq!(from(&site, "2001:db8::1").await.text(), "vm");
    let reloads = |result: &str| site.metric(&format!("weir_file_reloads_total{{result=\"{result}\"}}"));
    std::fs::write(&path, "2001:db8::/64\n").unwrap();
    until(|| reloads("ok") == Some(1.0)).await;
    assert_eq!(from(&site, "192.0.2.6").await.text(), "vm");
    assert_eq!(from(&site, "2001:db8::1").await.status(), 403);
    std::fs::write(&path, "192.0.2.0/24\nevil.example\n").unwrap();
    until(|| reloads("failed") == Some(1.0)).await;
    assert_eq!(from(&site, "192.0.2.6").await.text(), "vm");
    assert_eq!(from(&site, "2001:db8::1").await.status(), 403);
    assert_eq!(reloads("ok"), Some(1.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_refuse_without_waking_a_vm() {
    let backend = Backend::echo("vm").await;
    let rules = "
        [[route.filter.rule]]
        when = 'ip_in(client.ip, \"192.0.2.0/24\")'
        then = 'allow'
        [[route.filter.rule]]
        when = 'request.path.startsWith(\"/admin\") && !request.tls'
        then = 'deny'
        [[route.filter.rule]]
        when = 'request.headers[\"x-key\"] != \"secret\"'
        then = 451
    ";
    let site = Site::start(filtered(rules), ready(backend.address)).await;
    let get = async |target: &str, client: &str, fields: &str| {
        let head =
            format!("GET {target} HTTP/1.1\r\nhost: a\r\nx-forwarded-for: {client}\r\nconnection: close");
        ask(site.address, &format!("{head}\r\n{fields}\r\n")).await
    };
    for (target, fields, status) in [
        ("/admin/x", "x-key: secret\r\n", 403),
        ("/a%2fb//../admin", "", 400),
        ("//%61dmin", "x-key: secret\r\n", 403),
        ("/name", "x-key: other\r\n", 451),
        // Without the field the condition cannot be evaluated.
        ("/name", "", 451),
    ] {
        let response = get(target, "198.51.100.1", fields).await;
        assert_eq!(response.status(), status, "{target} {fields}");
        assert_eq!(response.header("weir-error") == Some("rule_denied"), status != 400, "{target} {fields}");
    }
    assert!(site.launcher.started().is_empty());
    assert_eq!(refusals(&site, "rule_denied"), Some(4.0));
    assert_eq!(site.metric(r#"weir_rule_errors_total{route="r"}"#), Some(1.0));
    assert_eq!(get("/name", "198.51.100.1", "x-key: secret\r\n").await.text(), "vm");
    assert_eq!(get("/admin", "192.0.2.1", "").await.status(), 200);
    let (_, log) = site.end().await;
    assert_eq!(line(&log, "/admin/x")["error"], "rule_denied");
}
