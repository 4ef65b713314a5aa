//! How long clients may take, and how many there may be.

use std::time::Duration;

use weir_config::model::{Config, Listener, ProxyProtocol};

use crate::backend::Backend;
use crate::client::Client;
use crate::secure;
use crate::site::{Site, config, ready, until, within};

fn on(change: impl FnOnce(&mut Listener)) -> Config {
    let mut config = config();
    let mut listener = Listener::at("127.0.0.1:0".parse().unwrap());
    change(&mut listener);
    config.listeners = vec![listener];
    config
}

/// Sends a byte whenever one is taken, until the connection ends.
async fn drip(mut client: Client, text: &str) {
    within(async {
        for byte in text.bytes().cycle() {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let sent = tokio::io::AsyncWriteExt::write_all(&mut client.stream, &[byte]).await;
            if sent.is_err() {
                return;
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_that_drips_is_cut_and_others_are_not() {
    let backend = Backend::echo("vm").await;
    let limit = Duration::from_millis(300);
    let site = Site::start(on(|listener| listener.header_timeout = limit), ready(backend.address)).await;
    // Longer than the limit between requests.
    let mut patient = Client::connect(site.address).await;
    patient.send("GET /1 HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!(patient.response().await.status(), 200);

    let mut silent = Client::connect(site.address).await;
    let mut second = Client::connect(site.address).await;
    second.send("GET /2 HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!(second.response().await.status(), 200);
    second.send("GET /3 HTTP/1.1\r\n").await;
    let dripping = Client::connect(site.address).await;
    assert!(silent.is_at_end().await);
    assert!(second.is_at_end().await);
    drip(dripping, "GET / HTTP/1.1\r\nx: y").await;

    patient.send("GET /4 HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!(patient.response().await.status(), 200);
    drop(patient);
    let (_, log) = site.end().await;
    let late = log.iter().filter(|line| line["error"] == "header_timeout" && line["status"] == 408);
    assert_eq!(late.count(), 3, "{log:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_may_take_longer_than_a_header() {
    let backend = Backend::echo("vm").await;
    let limit = Duration::from_millis(100);
    let site = Site::start(on(|listener| listener.header_timeout = limit), ready(backend.address)).await;
    let mut client = Client::connect(site.address).await;
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 8\r\n\r\n").await;
    for byte in ["a", "b", "c", "d", "e", "f", "g", "h"] {
        tokio::time::sleep(limit / 4).await;
        client.send(byte).await;
    }
    assert!(client.response().await.text().ends_with("abcdefgh"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_http_2_connection_that_does_not_begin_is_cut() {
    let backend = Backend::echo("vm").await;
    let change = |listener: &mut Listener| {
        listener.http2 = true;
        listener.header_timeout = Duration::from_millis(200);
    };
    let site = Site::start(on(change), ready(backend.address)).await;
    let mut client = Client::connect(site.address).await;
    client.send("PRI * HT").await;
    assert!(client.is_at_end().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_above_the_limit_are_closed_and_room_is_made_by_those_that_end() {
    let backend = Backend::echo("vm").await;
    let site = Site::start(on(|listener| listener.max_connections = 2), ready(backend.address)).await;
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut client = Client::connect(site.address).await;
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        assert_eq!(client.response().await.status(), 200);
        held.push(client);
    }
    let mut third = Client::connect(site.address).await;
    assert!(third.is_at_end().await);
    until(|| site.metric("weir_connections_refused_total") == Some(1.0)).await;
    held.pop();
    // Its end is noticed when weir gets to it.
    within(async {
        loop {
            let mut client = Client::connect(site.address).await;
            let request = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";
            if tokio::io::AsyncWriteExt::write_all(&mut client.stream, request).await.is_ok()
                && !client.is_at_end().await
            {
                return;
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_has_its_own_number_of_connections() {
    let backend = Backend::echo("vm").await;
    let change = |listener: &mut Listener| {
        listener.max_connections_per_client = Some(2);
        listener.proxy_protocol = ProxyProtocol::From(vec!["127.0.0.0/8".parse().unwrap()]);
    };
    let site = Site::start(on(change), ready(backend.address)).await;
    let connect = async |client: &str, protocol: &str| {
        let mut connection = Client::connect(site.address).await;
        let header = format!("PROXY {protocol} {client} {client} 1 2\r\n");
        connection.send(&format!("{header}GET /name HTTP/1.1\r\nhost: a\r\n\r\n")).await;
        connection
    };
    // The two of a /64 are one client, and so are an address and itself as IPv6.
    let clients =
        [("192.0.2.1", "TCP4", "::ffff:192.0.2.1", "TCP6"), ("2001:db8::1", "TCP6", "2001:db8::2", "TCP6")];
    let mut held = Vec::new();
    for (number, (one, protocol, other, other_protocol)) in (1_u8..).zip(clients) {
        for (client, protocol) in [(one, protocol), (other, other_protocol)] {
            let mut connection = connect(client, protocol).await;
            assert_eq!(connection.response().await.text(), "vm");
            held.push(connection);
        }
        assert!(connect(one, protocol).await.is_at_end().await, "{one}");
        until(|| site.metric("weir_connections_refused_total") == Some(number.into())).await;
    }
    held.clear();
    // Their ends are noticed when weir gets to them.
    within(async { while connect("192.0.2.1", "TCP4").await.is_at_end().await {} }).await;
}

/// Whoever begins with TLS and goes no further has his places, and no others'.
#[tokio::test(flavor = "multi_thread")]
async fn half_open_handshakes_are_counted_and_cut() {
    let backend = Backend::echo("vm").await;
    let files = tempfile::tempdir().unwrap();
    let change = |listener: &mut Listener| {
        *listener = secure::listener(files.path());
        listener.header_timeout = Duration::from_millis(500);
        listener.max_connections_per_client = Some(20);
    };
    let site = Site::start(on(change), ready(backend.address)).await;
    // A record that is never whole.
    let mut half_open = Vec::new();
    for _ in 0..25 {
        let mut client = Client::connect(site.address).await;
        // It may be refused already.
        let _ = tokio::io::AsyncWriteExt::write_all(&mut client.stream, b"\x16\x03\x01").await;
        half_open.push(client);
    }
    until(|| site.metric("weir_connections_refused_total") == Some(5.0)).await;
    for mut client in half_open {
        assert!(client.is_at_end().await);
    }
    assert!(secure::get(site.address, "/name").await.ends_with("vm"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_can_send_everybody_to_tls() {
    let backend = Backend::echo("vm").await;
    let change = |listener: &mut Listener| (listener.redirect_https, listener.http2) = (true, true);
    let site = Site::start(on(change), ready(backend.address)).await;
    let mut client = Client::connect(site.address).await;
    for (target, location) in [
        ("/a?b=c", "https://a.example/a?b=c"),
        ("//evil.example/", "https://a.example//evil.example/"),
        ("/", "https://a.example/"),
    ] {
        client.send(&format!("GET {target} HTTP/1.1\r\nhost: A.example:8080\r\n\r\n")).await;
        let response = client.response().await;
        assert_eq!((response.status(), response.header("location")), (308, Some(location)));
    }
    client.send("GET / HTTP/1.1\r\nhost: a@b\r\n\r\n").await;
    assert_eq!(client.response().await.status(), 400);

    let socket = tokio::net::TcpStream::connect(site.address).await.unwrap();
    let (mut requests, connection) = within(h2::client::handshake(socket)).await.unwrap();
    let connection = tokio::spawn(connection);
    let request = http::Request::get("http://b.example/x").body(()).unwrap();
    let response = within(requests.send_request(request, true).unwrap().0).await.unwrap();
    assert_eq!(
        (response.status().as_u16(), &response.headers()["location"]),
        (308, &"https://b.example/x".parse().unwrap())
    );
    connection.abort();
    assert!(site.launcher.started().is_empty(), "it wakes no pool");
}
