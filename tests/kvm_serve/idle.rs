//! Guests that work when nobody asks.

use std::time::{Duration, Instant};

use crate::client::Client;
use crate::probe::probe;
use crate::support::Weir;

/// How long a guest works by itself.
const WORK: Duration = Duration::from_secs(3);

fn start(idle_timeout: &str, scale: &str) -> (tempfile::NamedTempFile, Weir) {
    let (file, config) =
        probe("\"serve\"", "", &format!("min = 0\nmax = 1\nidle_timeout = \"{idle_timeout}\"\n{scale}"));
    let weir = Weir::start(&config);
    weir.logged("template ready");
    (file, weir)
}

#[test]
fn a_guest_that_works_in_the_background_is_not_idle_until_it_has_done() {
    let (_file, weir) = start("500ms", "");
    let begin = Instant::now();
    Client::connect(weir.http).body(&format!("/work?ms={}", WORK.as_millis()));
    weir.logged("vm idle");
    let life = begin.elapsed();
    assert!(life >= WORK, "gone after {life:?}");
    assert!(weir.metric("weir_vm_idle_checks_total", "result=\"working\"") >= 1.0);
    assert_eq!(weir.metric("weir_vm_idle_checks_total", "result=\"silent\""), 0.0);
}

#[test]
fn where_unused_is_idle_it_goes_whatever_it_does() {
    let (_file, weir) = start("500ms", "idle = \"unused\"");
    // Longer than anything here is waited for.
    Client::connect(weir.http).body("/work?ms=60000");
    weir.logged("vm idle");
}

#[test]
fn a_guest_that_has_answered_is_idle_although_it_still_looks_after_its_memory() {
    let (_file, weir) = start("2s", "");
    // Enough for it to give back, a second later.
    Client::connect(weir.http).body("/eat?n=1048576");
    weir.logged("vm idle");
    assert_eq!(weir.metric("weir_vm_idle_checks_total", "result=\"working\""), 0.0);
}
