//! Requests that two readers might read differently (RFC 9112 §6.3 and §11; "HTTP request smuggling"): whatever the client
//! sends, a VM sees the requests that weir saw, one for one, in a framing that leaves no choice.
//!
//! Every case goes out on a connection of its own, followed by a request for `/next`. A VM is a strict reader here: what it
//! does not understand to the letter is written down as garbage, and fails the test.

mod cases;
mod recorder;

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use self::cases::{AMBIGUOUS, BODIES, CHUNKS, Case, HEADS, LARGE, Outcome, TARGETS};
use self::recorder::{Recorder, Seen};
use crate::client::ask;
use crate::site::{Site, config, ready, until, within};

/// What a client got: statuses in their order, until the connection ended.
async fn statuses(address: SocketAddr, bytes: &[u8]) -> Vec<u16> {
    let mut stream = within(TcpStream::connect(address)).await.unwrap();
    let (mut reader, mut writer) = stream.split();
    let next = b"GET /next HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    let mut received = Vec::new();
    // Both at once: weir may answer, and close, before it has read everything. A reset is an end, too.
    let send = async {
        let _ = writer.write_all(&[bytes, next].concat()).await;
    };
    let receive = async {
        let _ = reader.read_to_end(&mut received).await;
    };
    within(async { tokio::join!(send, receive) }).await;
    let text = String::from_utf8_lossy(&received);
    let status = |part: &str| part.split(' ').next().and_then(|word| word.parse().ok());
    text.split("HTTP/1.1 ").skip(1).filter_map(status).filter(|status| *status != 100).collect()
}

/// Why what the VMs saw and the client got is not what the case allows.
fn objection(case: &Case, seen: &[Seen], statuses: &[u16]) -> Option<&'static str> {
    let whole: Vec<_> = seen.iter().filter(|seen| seen.target != "/next").collect();
    if seen.iter().any(|seen| seen.garbage) {
        return Some("a vm got what is no request");
    }
    if whole.iter().any(|seen| seen.target == "/smuggled") {
        return Some("a vm got the hidden request");
    }
    let refused = |statuses: &[u16]| statuses.first().is_some_and(|status| (400..=505).contains(status));
    let forwarded = |body: &str| {
        matches!(whole[..], [one] if one.whole && one.body == body.as_bytes())
            && statuses.first() == Some(&200)
    };
    let right = match case.outcome {
        // Nothing behind it may be read as a request: nobody knows where it begins.
        Outcome::Refused => seen.is_empty() && statuses.len() == 1 && refused(statuses),
        Outcome::Answered => whole.is_empty() && refused(statuses),
        Outcome::Forwarded(body) => forwarded(body),
        Outcome::Either(body) => (seen.is_empty() && refused(statuses)) || forwarded(body),
        Outcome::Last(body) => {
            statuses.len() == 1 && (seen.is_empty() && refused(statuses) || forwarded(body))
        }
        // It was on its way when the mistake was found. Who still sends then may see a reset and not the answer.
        Outcome::CutOff => {
            whole.len() <= 1
                && seen.len() == whole.len()
                && whole.iter().all(|seen| !seen.whole)
                && (statuses.is_empty() || statuses.len() == 1 && refused(statuses))
        }
    };
    if right { None } else { Some("neither refused nor forwarded as it should be") }
}

async fn hold(cases: &[Case]) {
    let mut place = start().await;
    let mut failures = Vec::new();
    for case in cases {
        let (site, recorder) = &place;
        let statuses = statuses(site.address, &case.bytes()).await;
        until(|| site.metric("weir_http_requests_in_flight") == Some(0.0)).await;
        let seen = recorder.take().await;
        if let Some(why) = objection(case, &seen, &statuses) {
            failures.push(format!("{}: {why}: statuses {statuses:?}, seen {seen:?}", case.name));
        }
        if matches!(case.outcome, Outcome::CutOff) {
            // What was cut off may reach the VM only now, and is not to be taken for the next case's.
            place = start().await;
        }
    }
    assert!(failures.is_empty(), "{} of {}:\n{}", failures.len(), cases.len(), failures.join("\n"));
}

async fn start() -> (Site, Recorder) {
    let recorder = Recorder::start().await;
    (Site::start(config(), ready(recorder.address())).await, recorder)
}

#[tokio::test(flavor = "multi_thread")]
async fn lengths_that_contradict_each_other() {
    hold(AMBIGUOUS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_that_are_none() {
    hold(HEADS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn targets_and_hosts_that_are_none() {
    hold(TARGETS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_where_none_is_expected() {
    hold(BODIES).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn chunks_that_are_none() {
    hold(CHUNKS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large() {
    hold(LARGE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mistake_in_a_body_is_answered() {
    let recorder = Recorder::start().await;
    let site = Site::start(config(), ready(recorder.address())).await;
    let head = "POST /case HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
    for body in ["x\r\n", "5\r\nhelloxx"] {
        let response = ask(site.address, &format!("{head}{body}")).await;
        assert_eq!((response.status(), response.header("weir-error")), (400, Some("bad_request")), "{body}");
    }
}

#[test]
fn there_are_enough_cases_and_each_has_a_name_of_its_own() {
    let all = [AMBIGUOUS, HEADS, TARGETS, BODIES, CHUNKS, LARGE];
    let names: std::collections::BTreeSet<_> =
        all.iter().flat_map(|cases| cases.iter()).map(|case| case.name).collect();
    assert_eq!(names.len(), all.iter().map(|cases| cases.len()).sum::<usize>());
    assert!(names.len() >= 60, "{}", names.len());
}
