//! `isolation = "request" | "connection"`: what a guest remembers is gone before anybody else asks.

use std::collections::BTreeSet;

use crate::client::{Client, at_once};
use crate::probe::probe;
use crate::support::Weir;

const CLIENTS: usize = 8;
/// Fewer than the clients, so that each VM serves many of them.
const VMS: &str = "min = 0\nmax = 3\nidle_timeout = \"60s\"";

fn isolated(isolation: &str) -> (tempfile::NamedTempFile, Weir) {
    let (file, config) = probe("\"serve\"", &format!("isolation = \"{isolation}\""), VMS);
    let weir = Weir::start(&config);
    weir.logged("template ready");
    (file, weir)
}

#[test]
fn nothing_that_a_request_leaves_behind_is_seen_by_another() {
    const EACH: usize = 75;
    let (_file, weir) = isolated("request");
    let answers = at_once(CLIENTS, weir.http, |address| {
        // One connection for all of them: only the VM behind it goes back.
        let mut client = Client::connect(address);
        let ask = |_| (client.body("/count"), client.body("/connection"));
        (0..EACH).map(ask).collect::<BTreeSet<_>>()
    });
    let only = BTreeSet::from([("0".to_owned(), "1".to_owned())]);
    assert!(answers.iter().all(|seen| *seen == only), "(count, requests on the connection): {answers:?}");
    let requests = (CLIENTS * EACH * 2) as f64;
    let (resets, starts) = resets_and_starts(&weir);
    assert!(
        starts <= 3.0 && resets + starts >= requests,
        "{resets} resets, {starts} starts, {requests} requests"
    );
}

#[test]
fn what_a_connection_leaves_behind_is_seen_by_itself_alone() {
    const CONNECTIONS: usize = 10;
    const REQUESTS: usize = 8;
    let (_file, weir) = isolated("connection");
    let expected: Vec<String> = (0..REQUESTS).map(|count| count.to_string()).collect();
    at_once(CLIENTS, weir.http, |address| {
        for _ in 0..CONNECTIONS {
            let mut client = Client::connect(address);
            let counts: Vec<String> = (0..REQUESTS).map(|_| client.body("/count")).collect();
            assert_eq!(counts, expected, "from zero, and nobody else's in between");
        }
    });
    let (resets, starts) = resets_and_starts(&weir);
    let connections = (CLIENTS * CONNECTIONS) as f64;
    assert!(starts <= 3.0 && resets + starts >= connections, "{resets} resets, {starts} starts");
}

fn resets_and_starts(weir: &Weir) -> (f64, f64) {
    (weir.metric("weir_vm_resets_total", ""), weir.metric("weir_vm_start_duration_seconds_count", ""))
}

#[test]
fn other_pools_keep_what_their_guests_remember() {
    let (_file, weir) = isolated("vm");
    let mut client = Client::connect(weir.http);
    let counts: Vec<String> = (0..3).map(|_| client.body("/count")).collect();
    assert_eq!(counts, ["0", "1", "2"]);
    assert_eq!(Client::connect(weir.http).body("/count"), "3", "on another connection too");
    assert_eq!(weir.metric("weir_vm_resets_total", ""), 0.0);
}
