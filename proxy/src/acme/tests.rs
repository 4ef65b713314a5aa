//! A CA that means no good, or is not well. (One that is well is pebble, in the whole program's tests.)

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use instant_acme::Error;
use weir_config::model::{Acme, AcmeChallenge};
use weir_pool::OwnNetwork;

use super::account::{AccountError, account};
use super::client::Client;
use super::schedule::LONGEST_ASKED;
use super::store::Store;
use super::{Challenges, RootCertStore, order};

/// Answers each request by what `answer` makes of its first line and the server's own URL; a connection for each.
fn ca(answer: impl Fn(&str, &str) -> Vec<u8> + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let own = format!("http://{address}");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = vec![0; 16 << 10];
            let read = stream.read(&mut request).unwrap_or(0);
            let line =
                String::from_utf8_lossy(&request[..read]).lines().next().unwrap_or_default().to_owned();
            // A client that has read enough has gone.
            let _ = stream.write_all(&answer(&line, &own));
        }
    });
    address
}

fn json(status: &str, headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\nreplay-nonce: n\r\n{headers}content-length: {length}\r\n\r\n{body}")
        .into_bytes()
}

/// A directory whose parts are all at `at`.
fn directory(at: &str) -> Vec<u8> {
    let body = format!(
        r#"{{"newNonce": "{at}/nonce", "newAccount": "{at}/account", "newOrder": "{at}/order",
        "revokeCert": "{at}/revoke", "keyChange": "{at}/key"}}"#
    );
    json("200 OK", "", &body)
}

/// What came of asking the CA at `address` for an account and a certificate for `a.example`; and the wait it asked for.
async fn obtain(address: SocketAddr) -> (String, Option<Duration>) {
    let home = tempfile::tempdir().unwrap();
    let acme = Acme {
        directory: format!("http://{address}/dir"),
        contact: Vec::new(),
        state: home.path().to_owned(),
        ca: None,
        challenge: AcmeChallenge::Http01,
        external_account: None,
    };
    let store = Store::open(acme.home()).unwrap();
    let client = Client::new(Arc::new(OwnNetwork), RootCertStore::empty(), &acme.directory).unwrap();
    let challenges = Challenges::default();
    let failed = match account(&acme, &store, &client).await {
        Ok(account) => {
            let names = ["a.example".to_owned()];
            let obtained = order::obtain(&account, &names, acme.challenge, &challenges);
            let obtained =
                tokio::time::timeout(Duration::from_secs(9), obtained).await.expect("it takes too long");
            obtained.unwrap_err().to_string()
        }
        Err(AccountError::Acme(Error::Other(error))) => error.to_string(),
        Err(error) => error.to_string(),
    };
    assert!(!challenges.are_pending(), "what failed is answered no more");
    (failed, client.asked_to_wait())
}

#[tokio::test]
async fn answers_are_bounded_and_lead_nowhere_else() {
    for (answer, expected) in [
        (
            Box::new(|_: &str, _: &str| Vec::new()) as Box<dyn Fn(&str, &str) -> Vec<u8> + Send>,
            "http with 127.0.0.1",
        ),
        (Box::new(|_, _| b"SSH-2.0-x\r\n".to_vec()), "http with 127.0.0.1"),
        (
            Box::new(|_, _| {
                let mut answer = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
                answer.resize(2 << 20, b' ');
                answer
            }),
            "the answer of 127.0.0.1 is not to be had or longer than 1 MiB",
        ),
        (Box::new(|_, _| [&b"HTTP/1.1 200 OK\r\nx: "[..], &[b'a'; 200_000]].concat()), "http with 127.0.0.1"),
        // A redirect is an answer like any other, which is no directory.
        (Box::new(|_, _| json("302 Found", "location: /x\r\n", "")), "failed to (de)serialize JSON"),
        (Box::new(|_, _| directory("http://192.0.2.1")), "192.0.2.1 has no address"),
        (Box::new(|_, _| directory("file:///etc")), "led to a url that is not https"),
        (Box::new(|_, _| directory("gopher://127.0.0.1")), "led to a url that is not https"),
    ] {
        let (failed, _) = obtain(ca(answer)).await;
        assert!(failed.starts_with(expected), "{failed}, and not {expected}");
    }
}

/// A CA that gives an account, and then the answer of `order` for everything about an order.
fn ca_until_order(order: impl Fn(&str, &str) -> Vec<u8> + Send + 'static) -> SocketAddr {
    ca(move |line, own| match line.split(' ').nth(1).unwrap_or_default() {
        "/dir" => directory(own),
        "/nonce" => json("200 OK", "", ""),
        "/account" => json("201 Created", &format!("location: {own}/account/1\r\n"), "{}"),
        path => order(path, own),
    })
}

#[tokio::test]
async fn a_ca_is_waited_for_as_it_asks_and_within_bounds() {
    for (asked, expected) in [
        ("3600", Some(Duration::from_secs(3600))),
        ("18446744073709551615", Some(LONGEST_ASKED)),
        ("99999999999999999999999", Some(LONGEST_ASKED)),
        ("-1", None),
        ("", None),
    ] {
        let problem = r#"{"type": "urn:ietf:params:acme:error:rateLimited", "detail": "too many"}"#;
        let limited = move |_: &str, _: &str| {
            json("429 Too Many Requests", &format!("retry-after: {asked}\r\n"), problem)
        };
        let (failed, wait) = obtain(ca_until_order(limited)).await;
        assert!(failed.contains("too many"), "{failed}");
        assert_eq!(wait, expected, "{asked}");
    }
}

/// An order for `a.example` whose only authorization is this.
async fn authorized_by(authorization: &'static str) -> String {
    let order = move |path: &str, own: &str| match path {
        "/authorization" => json("200 OK", "", &authorization.replace("OWN", own)),
        "/challenge" => {
            json("200 OK", "", r#"{"type": "http-01", "url": "x", "token": "t", "status": "invalid"}"#)
        }
        _ => {
            let order =
                r#"{"status": "invalid", "authorizations": ["OWN/authorization"], "finalize": "OWN/f"}"#;
            json("201 Created", &format!("location: {own}/order/1\r\n"), &order.replace("OWN", own))
        }
    };
    obtain(ca_until_order(order)).await.0
}

#[tokio::test]
async fn what_was_not_ordered_is_not_shown() {
    for (authorization, expected) in [
        (
            r#"{"identifier": {"type": "dns", "value": "b.example"}, "status": "pending", "challenges": []}"#,
            "the ca wants to see something of a name that was not ordered",
        ),
        (
            r#"{"identifier": {"type": "dns", "value": "a.example"}, "status": "pending", "challenges": []}"#,
            "the ca offers no Http01 for a.example",
        ),
        (
            r#"{"identifier": {"type": "dns", "value": "a.example"}, "status": "revoked", "challenges": []}"#,
            "the authorization for a.example is Revoked",
        ),
        (
            r#"{"identifier": {"type": "dns", "value": "a.example"}, "status": "pending", "challenges":
            [{"type": "http-01", "url": "OWN/challenge", "token": "../../secret", "status": "pending"}]}"#,
            "the ca's token for a.example makes no sense",
        ),
        (
            r#"{"identifier": {"type": "dns", "value": "a.example"}, "status": "pending", "challenges":
            [{"type": "http-01", "url": "OWN/challenge", "token": "t", "status": "pending"}]}"#,
            "the ca was not convinced",
        ),
    ] {
        assert_eq!(authorized_by(authorization).await, expected);
    }
}
