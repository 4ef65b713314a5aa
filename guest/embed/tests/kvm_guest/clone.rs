//! Guests that continue from a snapshot, and go back to it.

use std::collections::BTreeSet;

use weir_guest::PROBE;
use weir_net::tap::TapPool;
use weir_vmm::ExitReason;

use super::Case;
use super::client::{Client, get};
use super::vm::{Snapshot, Vm};

pub(crate) const CASES: &[Case] = &[
    ("clone::clones_serve_at_once_and_know_who_they_are", clones_serve_at_once_and_know_who_they_are),
    ("clone::a_reset_takes_everything_back", a_reset_takes_everything_back),
    ("clone::a_spinning_clone_can_be_reset", a_spinning_clone_can_be_reset),
    ("clone::a_reset_in_the_middle_of_an_answer_ends_it", a_reset_in_the_middle_of_an_answer_ends_it),
];

fn snapshot(taps: &TapPool) -> Snapshot {
    Snapshot::of(taps, PROBE, &["serve"])
}

fn text(vm: &Vm, target: &str) -> String {
    let response = get(vm.address(), target);
    assert_eq!(response.status, 200);
    response.text().trim().to_owned()
}

fn clones_serve_at_once_and_know_who_they_are(taps: &TapPool) {
    let snapshot = snapshot(taps);
    let vms: Vec<Vm> = (100..108).map(|id| snapshot.thaw(taps, id)).collect();
    for (id, vm) in (100..).zip(&vms) {
        let identity = text(vm, "/identity");
        assert!(identity.contains(&format!("\"vm\":{id}")), "{identity}");
        assert!(identity.contains(&vm.address().ip().to_string()), "{identity}");
        assert_eq!(text(vm, "/count"), "0", "what one clone counts no other sees");
    }
    let randoms: BTreeSet<String> = vms.iter().map(|vm| text(vm, "/random")).collect();
    assert_eq!(randoms.len(), vms.len());
    for vm in vms {
        assert_eq!(vm.stop(), ExitReason::Stopped);
    }
}

fn a_reset_takes_everything_back(taps: &TapPool) {
    let vm = snapshot(taps).thaw(taps, 7);
    let mut seen = BTreeSet::new();
    for _ in 0..20 {
        assert_eq!(text(&vm, "/count"), "0");
        assert_eq!(text(&vm, "/count"), "1");
        assert!(seen.insert(text(&vm, "/random")), "a random number came twice");
        vm.reset();
    }
}

fn a_spinning_clone_can_be_reset(taps: &TapPool) {
    let vm = Snapshot::of(taps, PROBE, &["spin-on-request"]).thaw(taps, 7);
    for _ in 0..3 {
        let mut client = Client::connect(vm.address());
        client.get("/");
        vm.reset();
    }
    assert_eq!(vm.stop(), ExitReason::Stopped);
}

fn a_reset_in_the_middle_of_an_answer_ends_it(taps: &TapPool) {
    let vm = snapshot(taps).thaw(taps, 7);
    let mut client = Client::connect(vm.address());
    client.get("/bytes?n=100000000");
    client.head();
    client.skip(100_000);
    vm.reset();
    assert_eq!(text(&vm, "/count"), "0");
    // What comes of the old connection at last is its end, not an answer of the new incarnation.
    let _ = client.socket().shutdown(std::net::Shutdown::Write);
    assert!(client.rest().map_or(true, |rest| rest.len() < 100_000_000));
}
