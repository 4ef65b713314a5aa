//! Listeners on Unix sockets.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use weir_config::model::{Config, Listener, ProxyProtocol};

use crate::backend::Backend;
use crate::client::header;
use crate::secure;
use crate::site::{Site, config, line, ready, within};

fn at(path: &Path) -> Config {
    let mut config = config();
    config.listeners = vec![Listener::at_path(path)];
    config
}

/// What the site answers to one GET, after `before`.
async fn get(path: &Path, before: &str, target: &str) -> String {
    let mut stream = within(UnixStream::connect(path)).await.unwrap();
    let request = format!("{before}GET {target} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
    within(stream.write_all(request.as_bytes())).await.unwrap();
    let mut answer = String::new();
    within(stream.read_to_string(&mut answer)).await.unwrap();
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_without_an_address_are_served() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let backend = Backend::echo("vm").await;
    let site = Site::start(at(&path), ready(backend.address)).await;
    let answer = get(&path, "", "/one").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert_eq!(header(&answer, "x-forwarded-for"), None);
    let (_, log) = site.end().await;
    assert_eq!(line(&log, "/one")["client"], "unix");
    assert!(!path.exists(), "the file goes with the listener");
}

#[tokio::test(flavor = "multi_thread")]
async fn networks_do_not_have_them() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let backend = Backend::echo("vm").await;
    for (allow, deny, status) in
        [(Some("0.0.0.0/0"), None, "HTTP/1.1 403 "), (None, Some("0.0.0.0/0"), "HTTP/1.1 200 ")]
    {
        let mut config = at(&path);
        let route = std::sync::Arc::make_mut(&mut config.routes[0]);
        route.filter.allow = allow.map(|network| vec![network.parse().unwrap()]);
        route.filter.deny = deny.iter().map(|network| network.parse().unwrap()).collect();
        let site = Site::start(config, ready(backend.address)).await;
        let answer = get(&path, "", "/").await;
        assert!(answer.starts_with(status), "{answer}");
        site.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_may_open_it_may_say_whom_it_is_for() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let backend = Backend::echo("vm").await;
    let mut config = at(&path);
    config.listeners[0].proxy_protocol = ProxyProtocol::Everybody;
    let site = Site::start(config, ready(backend.address)).await;
    let answer = get(&path, "PROXY TCP4 192.0.2.7 198.51.100.1 1 2\r\n", "/one").await;
    assert_eq!(header(answer.split_once("\r\n\r\n").unwrap().1, "x-forwarded-for"), Some("192.0.2.7"));
    assert_eq!(get(&path, "", "/two").await, "", "it has to");
    let (_, log) = site.end().await;
    assert_eq!(line(&log, "/one")["client"], "192.0.2.7");
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_is_spoken_over_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let backend = Backend::echo("vm").await;
    let mut config = at(&path);
    config.listeners[0].tls = secure::listener(directory.path()).tls;
    let site = Site::start(config, ready(backend.address)).await;
    let stream = within(UnixStream::connect(&path)).await.unwrap();
    let mut stream = secure::handshake(stream, &secure::Guise::default(), "a.example", &[], secure::VERSIONS)
        .await
        .unwrap();
    stream.write_all(b"GET /one HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    within(stream.read_to_end(&mut answer)).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200 "));
    drop(site);
}

#[tokio::test(flavor = "multi_thread")]
async fn they_come_change_and_go() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let backend = Backend::echo("vm").await;
    let site = Site::start(config(), ready(backend.address)).await;
    // What a process that was killed left behind.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    site.reload(|config| config.listeners.push(Listener::at_path(&path))).await;
    assert!(get(&path, "", "/").await.starts_with("HTTP/1.1 200 "));
    let inode = || std::fs::metadata(&path).map(|file| std::os::unix::fs::MetadataExt::ino(&file)).unwrap();
    let first = inode();
    site.reload(|config| config.listeners[1].mode = 0o600).await;
    assert_eq!(inode(), first, "the same socket");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(get(&path, "", "/").await.starts_with("HTTP/1.1 200 "));
    site.reload(|config| drop(config.listeners.pop())).await;
    within(async {
        while path.exists() {
            tokio::task::yield_now().await
        }
    })
    .await;
    assert!(UnixStream::connect(&path).await.is_err());
}
