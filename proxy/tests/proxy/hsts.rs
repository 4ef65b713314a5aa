//! Answers that tell browsers to come back with TLS.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use weir_config::model::{Hsts, Listener};

use crate::backend::Backend;
use crate::client::header;
use crate::secure::{self, VERSIONS, connect, listener};
use crate::site::{Site, config, ready, within};

const FIELD: &str = "strict-transport-security";

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_over_tls_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let says = "content-length: 0\r\nstrict-transport-security: max-age=1\r\n";
    let backend = Backend::start(move |mut connection| async move {
        while connection.request().await.is_some() {
            let answer = format!("HTTP/1.1 200 OK\r\n{says}\r\n");
            if connection.stream.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        }
    })
    .await;
    let mut config = config();
    let mut listener = listener(directory.path());
    let hsts = Hsts { max_age: Duration::from_secs(60), include_subdomains: true, preload: false };
    listener.tls.as_mut().unwrap().hsts = Some(hsts);
    config.listeners = vec![listener];
    let mut route = (*config.routes[0]).clone();
    (route.name, route.path) = ("closed".to_owned(), "/closed".to_owned());
    route.filter.allow = Some(Vec::new());
    config.routes.push(Arc::new(route));
    let site = Site::start(config, ready(backend.address)).await;
    for (path, status) in [("/", "200"), ("/closed", "403"), ("/%00", "400")] {
        let answer = secure::get(site.address, path).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        assert_eq!(header(&answer, FIELD), Some("max-age=60; includeSubDomains"), "{answer}");
        assert_eq!(answer.matches(FIELD).count(), 1);
    }
    // What no hook sees.
    let mut stream = connect(site.address, "a.example", &[], VERSIONS).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    within(stream.read_to_end(&mut answer)).await.unwrap();
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert_eq!(header(&answer, FIELD), Some("max-age=60; includeSubDomains"), "{answer}");

    // And of a listener beside it, none.
    let plain = weir_config::ListenAddress::Unix(directory.path().join("s"));
    let plain = Listener { address: plain, ..Listener::at(site.address) };
    site.reload(|config| config.listeners.push(plain)).await;
    let mut stream = within(tokio::net::UnixStream::connect(directory.path().join("s"))).await.unwrap();
    stream.write_all(b"GET /closed HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    within(stream.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 403 ") && !answer.contains(FIELD), "{answer}");
}
