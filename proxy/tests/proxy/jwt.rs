//! Clients that have to show a token.

use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use tempfile::TempDir;
use weir_config::model::Config;

use crate::actions::routed;
use crate::backend::Backend;
use crate::client::{Client, Response, ask};
use crate::site::{Site, line, ready, until};

/// Seconds for which tokens of these tests are valid.
const HOUR: u64 = 3600;

fn write_key(directory: &TempDir, secret: [u8; 32]) {
    let key = URL_SAFE_NO_PAD.encode(secret);
    let set = format!(r#"{{"keys":[{{"kty":"oct","kid":"k","k":"{key}"}}]}}"#);
    std::fs::write(directory.path().join("keys"), set).unwrap();
}

/// A route `r` that asks for tokens.
fn with_tokens(directory: &TempDir, more: &str) -> Config {
    write_key(directory, [1; 32]);
    let path = directory.path().join("keys");
    routed(&format!(
        "[[route]]\nname = 'r'\npool = 'p'\n[route.auth.jwt]\njwks = '{}'\nalgorithms = ['HS256']\n\
         claims_to_headers = {{ sub = 'x-user', role = 'x-role' }}\n{more}\n",
        path.display(),
    ))
}

/// Ada's, signed with [1; 32].
fn token(expires: SystemTime) -> String {
    let expires = expires.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let [header, claims] =
        [r#"{"alg":"HS256","kid":"k"}"#.to_owned(), format!(r#"{{"sub":"ada","exp":{expires}}}"#)]
            .map(|part| URL_SAFE_NO_PAD.encode(part));
    let signed = format!("{header}.{claims}");
    let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &[1; 32]), signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn good() -> String {
    token(SystemTime::now() + Duration::from_secs(HOUR))
}

async fn get(site: &Site, path: &str, fields: &str) -> Response {
    ask(site.address, &format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n{fields}\r\n")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_asked_for_before_a_vm_is_woken() {
    let backend = Backend::echo("vm").await;
    let directory = tempfile::tempdir().unwrap();
    let site = Site::start(with_tokens(&directory, ""), ready(backend.address)).await;
    let old = token(SystemTime::now() - Duration::from_secs(HOUR));
    let none = r#"Bearer realm="weir""#;
    let expired = format!(r#"{none}, error="invalid_token", error_description="it has expired""#);
    for (fields, challenge) in [
        ("", none),
        ("authorization: Basic eA==\r\n", none),
        (&format!("authorization: Bearer {old}\r\n"), &expired),
    ] {
        let response = get(&site, "/", fields).await;
        assert_eq!((response.status(), response.header("weir-error")), (401, Some("unauthorized")));
        assert_eq!(response.header("www-authenticate"), Some(challenge));
    }
    assert!(site.launcher.started().is_empty());
    let good = good();
    // The second time it is remembered. A claim that is not there cannot be made up.
    for path in ["/seen", "/again"] {
        let fields =
            format!("authorization: Bearer {good}\r\nx-user: root\r\nx_user: root\r\nX-Role: root\r\n");
        let seen = get(&site, path, &fields).await.text().to_lowercase();
        assert!(seen.contains("x-user: ada\r\n"), "{seen}");
        assert!(!seen.contains("root") && !seen.contains("authorization"), "{seen}");
    }
    let (_, log) = site.end().await;
    assert_eq!(line(&log, "/again")["user"], "ada");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cookie_is_taken_out_and_a_token_ends_with_its_key() {
    let backend = Backend::echo("vm").await;
    let directory = tempfile::tempdir().unwrap();
    let site = Site::start(with_tokens(&directory, "cookie = 'token'"), ready(backend.address)).await;
    let good = good();
    for (cookies, left) in [
        (format!("a=b; token={good}; tokens=c"), Some("cookie: a=b; tokens=c\r\n")),
        (format!("token={good}"), None),
        (format!("token={good};token=x"), None),
    ] {
        let seen = get(&site, "/", &format!("cookie: {cookies}\r\n")).await.text().to_lowercase();
        assert!(seen.contains("x-user: ada\r\n"), "{seen}");
        let found = seen.split_inclusive('\n').find(|line| line.starts_with("cookie:"));
        assert_eq!(found, left, "{cookies}");
    }
    let mut client = Client::connect(site.address).await;
    let request = format!("GET / HTTP/1.1\r\nhost: a\r\ncookie: token={good}\r\n\r\n");
    client.send(&request).await;
    assert_eq!(client.response().await.status(), 200);
    write_key(&directory, [2; 32]);
    until(|| site.metric("weir_file_reloads_total{result=\"ok\"}") == Some(1.0)).await;
    client.send(&request).await;
    assert_eq!(client.response().await.status(), 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_may_be_forwarded() {
    let backend = Backend::echo("vm").await;
    let directory = tempfile::tempdir().unwrap();
    let config = with_tokens(&directory, "header = 'x-token'\nforward = true");
    let site = Site::start(config, ready(backend.address)).await;
    let good = good();
    let seen = get(&site, "/", &format!("x-token: {good}\r\n")).await;
    let seen = seen.text();
    assert!(seen.contains(&good) && seen.contains("x-user: ada\r\n"), "{seen}");
}
