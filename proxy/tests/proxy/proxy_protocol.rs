//! Connections that a load balancer passes on.

use weir_config::model::{Config, Listener, ProxyProtocol};

use crate::backend::Backend;
use crate::client::{Client, header};
use crate::secure::{Guise, get_as, listener};
use crate::site::{Site, config, line, ready};

fn trusting(network: &str) -> Config {
    let mut config = config();
    let plain = Listener::at("127.0.0.1:0".parse().unwrap());
    config.listeners =
        vec![Listener { proxy_protocol: ProxyProtocol::From(vec![network.parse().unwrap()]), ..plain }];
    config
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: a\r\nx-forwarded-for: 6.6.6.6\r\nconnection: close\r\n\r\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_is_whom_the_load_balancer_names() {
    let backend = Backend::echo("vm").await;
    let site = Site::start(trusting("127.0.0.0/8"), ready(backend.address)).await;
    // Version 1, in pieces.
    let mut client = Client::connect(site.address).await;
    client.send("PROXY TCP4 192.0.2.7 198.51.100.1 5").await;
    client.send(&format!("6324 443\r\n{}", get("/1"))).await;
    let seen = client.response().await.text().to_owned();
    assert_eq!(header(&seen, "x-forwarded-for"), Some("6.6.6.6, 192.0.2.7"));
    // Version 2 with IPv6.
    let mut client = Client::connect(site.address).await;
    let from = "2001:db8::7".parse::<std::net::Ipv6Addr>().unwrap().octets();
    let rest = [&from[..], &from, &[1, 2, 3, 4]].concat();
    let bytes = [b"\r\n\r\n\0\r\nQUIT\n\x21\x21\0\x24", &rest[..], get("/2").as_bytes()].concat();
    tokio::io::AsyncWriteExt::write_all(&mut client.stream, &bytes).await.unwrap();
    let seen = client.response().await.text().to_owned();
    assert_eq!(header(&seen, "x-forwarded-for"), Some("6.6.6.6, 2001:db8::7"));
    // Its own check of health.
    let mut client = Client::connect(site.address).await;
    client.send(&format!("PROXY UNKNOWN\r\n{}", get("/3"))).await;
    assert_eq!(client.response().await.status(), 200);

    let (_, log) = site.end().await;
    for (path, client) in [("/1", "192.0.2.7"), ("/2", "2001:db8::7"), ("/3", "127.0.0.1")] {
        assert_eq!(line(&log, path)["client"], client);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trusted_host_that_names_nobody_is_closed() {
    let backend = Backend::echo("vm").await;
    let site = Site::start(trusting("127.0.0.1/32"), ready(backend.address)).await;
    for bytes in [get("/"), "PROXY TCP4 1.2.3.4 1.2.3.4 1 x\r\n".to_owned() + &get("/")] {
        let mut client = Client::connect(site.address).await;
        client.send(&bytes).await;
        assert!(client.is_at_end().await);
    }
    assert_eq!(backend.connections(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_else_is_believed() {
    let backend = Backend::echo("vm").await;
    let site = Site::start(trusting("10.0.0.0/8"), ready(backend.address)).await;
    let mut client = Client::connect(site.address).await;
    client.send(&format!("PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n{}", get("/"))).await;
    assert_eq!(client.response().await.status(), 400);
    let mut client = Client::connect(site.address).await;
    client.send(&get("/direct")).await;
    let seen = client.response().await.text().to_owned();
    assert_eq!(header(&seen, "x-forwarded-for"), Some("6.6.6.6, 127.0.0.1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn it_comes_before_tls() {
    let directory = tempfile::tempdir().unwrap();
    let backend = Backend::echo("vm").await;
    let mut config = trusting("127.0.0.0/8");
    config.listeners[0].tls = listener(directory.path()).tls;
    let site = Site::start(config, ready(backend.address)).await;
    let before = b"PROXY TCP4 192.0.2.7 1.1.1.1 1 2\r\n".to_vec();
    let answer = get_as(site.address, &Guise { before, ..Guise::default() }, "/", "").await.unwrap();
    assert!(answer.contains("x-forwarded-for: 192.0.2.7\r\n"), "{answer}");
}
