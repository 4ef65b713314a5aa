//! TLS: certificates, versions, protocols, and clients that do not get that far.

use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use weir_config::model::{Hsts, Listener, TlsVersion};

use crate::backend::Backend;
use crate::client::header;
use crate::reload::free_address;
use crate::secure::{self, Guise, VERSIONS, certificate, connect, get_by, listener, shown, tls};
use crate::site::{Site, config, line, ready, until, within};

fn on(listener: Listener) -> weir_config::model::Config {
    let mut config = config();
    config.listeners = vec![listener];
    config
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_gets_the_certificate_of_the_name_it_asks_for() {
    let directory = tempfile::tempdir().unwrap();
    let (first, first_der) = certificate(directory.path(), "first", &["first.example"]);
    let (second, second_der) = certificate(directory.path(), "second", &["a.example", "*.b.example"]);
    let backend = Backend::echo("vm").await;
    let listener = Listener { tls: Some(tls([first, second])), ..listener(directory.path()) };
    let site = Site::start(on(listener), ready(backend.address)).await;
    for (name, expected) in [
        ("a.example", &second_der),
        ("x.b.example", &second_der),
        ("first.example", &first_der),
        ("other.example", &first_der),
        // No name is sent for an address.
        ("127.0.0.1", &first_der),
    ] {
        let stream = connect(site.address, name, &[], VERSIONS).await.unwrap();
        assert!(shown(&stream) == *expected, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_below_the_minimum_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let backend = Backend::echo("vm").await;
    for (min_version, old_client) in [(TlsVersion::Tls12, true), (TlsVersion::Tls13, false)] {
        let mut listener = listener(directory.path());
        listener.tls.as_mut().unwrap().min_version = min_version;
        let site = Site::start(on(listener), ready(backend.address)).await;
        let old = connect(site.address, "a.example", &[], &[&rustls::version::TLS12]).await;
        assert_eq!(old.is_ok(), old_client, "{min_version:?}");
        assert!(connect(site.address, "a.example", &[], &[&rustls::version::TLS13]).await.is_ok());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_vm_and_the_log_learn_of_tls_and_http_2() {
    let directory = tempfile::tempdir().unwrap();
    let backend = Backend::echo("vm").await;
    let site = Site::start(on(listener(directory.path())), ready(backend.address)).await;
    let answer = secure::get(site.address, "/one").await;
    assert!(answer.contains("\r\nx-forwarded-proto: https\r\n"), "{answer}");

    let stream = connect(site.address, "a.example", &["h2", "http/1.1"], VERSIONS).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (mut requests, connection) = within(h2::client::handshake(stream)).await.unwrap();
    let connection = tokio::spawn(connection);
    let request = http::Request::post("https://a.example:81/two?q").header("cookie", "a=1");
    let request = request.header("cookie", "b=2").header("x-forwarded-proto", "http").body(()).unwrap();
    let (response, mut body) = requests.send_request(request, false).unwrap();
    body.send_data(Bytes::from_static(b"some body"), true).unwrap();
    let response = within(response).await.unwrap();
    assert_eq!((response.status().as_u16(), response.version()), (200, http::Version::HTTP_2));
    assert_eq!(response.headers().get("connection"), None);
    let mut body = response.into_body();
    let mut seen = Vec::new();
    while let Some(chunk) = within(body.data()).await {
        seen.extend_from_slice(&chunk.unwrap());
    }
    let seen = String::from_utf8(seen).unwrap();
    assert!(seen.starts_with("POST /two?q HTTP/1.1\r\n"), "{seen}");
    for (name, value) in [
        ("host", Some("a.example:81")),
        ("x-forwarded-proto", Some("https")),
        ("x-forwarded-host", Some("a.example:81")),
        ("via", Some("2 weir")),
        ("transfer-encoding", Some("chunked")),
        // RFC 9113 section 8.2.3: HTTP/1 has one field of them.
        ("cookie", Some("a=1; b=2")),
    ] {
        assert_eq!(header(&seen, name), value, "{name}: {seen}");
    }
    drop(requests);
    connection.abort();
    let (_, log) = site.end().await;
    let said = |path: &str| (line(&log, path)["protocol"].clone(), line(&log, path)["tls"].clone());
    assert_eq!(said("/one"), ("HTTP/1.1".into(), "TLSv1_3".into()));
    assert_eq!(said("/two?q"), ("HTTP/2.0".into(), "TLSv1_3".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn http_2_can_be_left_out() {
    let directory = tempfile::tempdir().unwrap();
    let backend = Backend::echo("vm").await;
    let listener = Listener { http2: false, ..listener(directory.path()) };
    let site = Site::start(on(listener), ready(backend.address)).await;
    let stream = connect(site.address, "a.example", &["h2", "http/1.1"], VERSIONS).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    assert!(connect(site.address, "a.example", &["h2"], VERSIONS).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_reloaded_when_their_files_change() {
    let directory = tempfile::tempdir().unwrap();
    let backend = Backend::echo("vm").await;
    let listener = listener(directory.path());
    let site = Site::start(on(listener), ready(backend.address)).await;
    let shown_now = async || shown(&connect(site.address, "a.example", &[], VERSIONS).await.unwrap());
    let old = shown_now().await;
    let (_, new) = certificate(directory.path(), "any", &["a.example"]);
    // A look in between of both files' writing counts a failure.
    until(|| site.metric("weir_tls_reloads_total{result=\"ok\"}") == Some(1.0)).await;
    let now = shown_now().await;
    assert!(now == new && now != old);
    let failed = || site.metric("weir_tls_reloads_total{result=\"failed\"}").unwrap_or(0.0);
    let before = failed();
    std::fs::write(directory.path().join("any.pem"), "nonsense").unwrap();
    until(|| failed() > before).await;
    assert!(shown_now().await == new);
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_are_resumed_by_the_listener_that_takes_the_address_over() {
    let directory = tempfile::tempdir().unwrap();
    let backend = Backend::echo("vm").await;
    let listener = Listener { address: free_address().into(), ..listener(directory.path()) };
    let address = listener.address.ip().unwrap();
    let site = Site::start(on(listener), ready(backend.address)).await;
    for version in VERSIONS {
        let client = secure::client(&Guise::default(), &[], &[version]);
        for resumed in [false, true] {
            assert_eq!(get_by(&client, address).await.unwrap().0, resumed, "{version:?}");
        }
        let mut max_age = 0;
        // The earlier listener may have accepted a connection meanwhile.
        site.reload(|config| {
            let tls = config.listeners[0].tls.as_mut().unwrap();
            max_age = tls.hsts.as_ref().map_or(1, |hsts| hsts.max_age.as_secs() + 1);
            let max_age = Duration::from_secs(max_age);
            tls.hsts = Some(Hsts { max_age, include_subdomains: false, preload: false });
        })
        .await;
        let by_the_new = format!("strict-transport-security: max-age={max_age}\r\n");
        let resumed = within(async {
            loop {
                let (resumed, answer) = get_by(&client, address).await.unwrap();
                if answer.to_lowercase().contains(&by_the_new) {
                    return resumed;
                }
            }
        });
        assert!(resumed.await, "{version:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_without_tls_are_closed_and_harm_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let backend = Backend::echo("vm").await;
    let header_timeout = Duration::from_millis(200);
    let listener = Listener { header_timeout, ..listener(directory.path()) };
    let site = Site::start(on(listener), ready(backend.address)).await;
    let mut silent = TcpStream::connect(site.address).await.unwrap();
    let mut plain = TcpStream::connect(site.address).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    for client in [&mut silent, &mut plain] {
        let mut answer = Vec::new();
        // Its end, be it a reset.
        let _ = within(client.read_to_end(&mut answer)).await;
        assert!(!answer.starts_with(b"HTTP/"), "{answer:?}");
    }
    assert!(secure::get(site.address, "/").await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_certificate_keeps_weir_from_serving() {
    let directory = tempfile::tempdir().unwrap();
    let backend = Backend::echo("vm").await;
    let listener = listener(directory.path());
    std::fs::write(&listener.tls.as_ref().unwrap().certificates[0].key, "").unwrap();
    let site = Site::start(on(listener), ready(backend.address)).await;
    let error = within(site.serving).await.unwrap().unwrap_err();
    assert_eq!(error.to_string(), "listener[0].tls");
}
