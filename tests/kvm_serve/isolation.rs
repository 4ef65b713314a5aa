//! `isolation = "request" | "connection"`: what a guest remembers is gone before anybody else asks.

use std::collections::BTreeSet;

use crate::client::{Client, at_once};
use crate::probe::probe;
use crate::support::Weir;

const CLIENTS: usize = 8;

/// A pool of at most `vms`, with its template.
fn isolated(isolation: &str, vms: usize) -> (tempfile::NamedTempFile, Weir) {
    let scale = format!("min = 0\nmax = {vms}\nidle_timeout = \"60s\"");
    let (file, config) = probe("\"serve\"", &format!("isolation = \"{isolation}\""), &scale);
    let weir = Weir::start(&config);
    weir.logged("template ready");
    (file, weir)
}

#[test]
fn nothing_that_a_request_leaves_behind_is_seen_by_another() {
    const EACH: usize = 65;
    let (_file, weir) = isolated("request", 3);
    let answers = at_once(CLIENTS, weir.http, |address| {
        // One connection for all of them: only the VM behind it goes back.
        let mut client = Client::connect(address);
        (0..EACH).map(|_| client.body("/count")).collect::<BTreeSet<_>>()
    });
    let only = BTreeSet::from(["0".to_owned()]);
    assert!(answers.iter().all(|seen| *seen == only), "{answers:?}");
    assert_went_back(&weir, 3, CLIENTS * EACH);
}

#[test]
fn a_connection_sees_what_it_left_behind_and_nothing_else() {
    const ROUNDS: usize = 3;
    const REQUESTS: usize = 8;
    // As many as connections, so that none has to give its VM up.
    let (_file, weir) = isolated("connection", CLIENTS * ROUNDS);
    let expected: Vec<String> = (0..REQUESTS).map(|count| count.to_string()).collect();
    for _ in 0..ROUNDS {
        // They are closed when all have their answers.
        let _clients = at_once(CLIENTS, weir.http, |address| {
            let mut client = Client::connect(address);
            let counts: Vec<String> = (0..REQUESTS).map(|_| client.body("/count")).collect();
            assert_eq!(counts, expected, "from zero, and nobody else's in between");
            client
        });
    }
}

#[test]
fn a_vm_that_an_idle_connection_gives_up_has_forgotten_it() {
    const REQUESTS: usize = 20;
    let (_file, weir) = isolated("connection", 2);
    at_once(CLIENTS, weir.http, |address| {
        let mut client = Client::connect(address);
        let mut before = None;
        for _ in 0..REQUESTS {
            let count: u32 = client.body("/count").parse().expect("a number");
            let own = before.map(|before| before + 1);
            assert!(count == 0 || Some(count) == own, "another's count: {count} after {before:?}");
            before = Some(count);
        }
    });
    assert_went_back(&weir, 2, CLIENTS);
}

/// Each of at least `tenancies` had a clean VM because one of at most `vms` went back to its snapshot. A VM that had to
/// boot, because the machine was too busy for its clone, has none and ends instead: another may have come for it.
fn assert_went_back(weir: &Weir, vms: usize, tenancies: usize) {
    let went_back = weir.metric("weir_vm_reset_duration_seconds_count", "");
    let (ended, starts) = (weir.metric("weir_vm_exits_total", ""), "weir_vm_start_duration_seconds_count");
    let (booted, all) = (weir.metric(starts, "kind=\"cold\""), weir.metric(starts, ""));
    let told = format!("{went_back} resets, {all} starts, {booted} of them cold, {ended} ends");
    assert!(ended <= booted && all - ended <= vms as f64, "{told}");
    assert!(went_back + all >= tenancies as f64, "{told}");
}

#[test]
fn other_pools_keep_what_their_guests_remember() {
    let (_file, weir) = isolated("vm", 3);
    let mut client = Client::connect(weir.http);
    let counts: Vec<String> = (0..3).map(|_| client.body("/count")).collect();
    assert_eq!(counts, ["0", "1", "2"]);
    assert_eq!(Client::connect(weir.http).body("/count"), "3", "on another connection too");
    assert_eq!(weir.metric("weir_vm_resets_total", ""), 0.0);
}
