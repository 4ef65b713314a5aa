//! Guests that misbehave, and processes that are killed: what clients see, and what weir does about it.

use std::time::Instant;

use crate::client::at_once;
use crate::probe::probe;
use crate::support::{Weir, get, kill, launcher_and_vms, one_pool};

const ONE: &str = "min = 0\nmax = 1\nidle_timeout = \"60s\"";

#[test]
fn a_guest_that_is_never_ready_times_out_with_a_reason() {
    let (_file, config) = probe("\"never-ready\"", "start_timeout = \"200ms\"", ONE);
    let weir = Weir::start(&config);
    let answer = weir.curl(&["/"]);
    assert_eq!((answer.status, answer.header("weir-error")), (503, Some("start_failed")), "{answer:?}");
    assert!(answer.header("retry-after").is_some());
    assert!(weir.metric("weir_vm_exits_total", "reason=\"start_timeout\"") >= 1.0);
}

#[test]
fn a_guest_that_crashes_at_boot_is_not_started_in_a_busy_loop() {
    let (_file, config) = probe("\"crash-at-boot\"", "", ONE);
    let weir = Weir::start(&config);
    let begin = Instant::now();
    for _ in 0..10 {
        let answer = get(weir.http, "/");
        assert_eq!((answer.status, answer.header("weir-error")), (503, Some("start_failed")), "{answer:?}");
    }
    let starts = weir.metric("weir_vm_exits_total", "reason=\"panic\"");
    // Back-off doubles from 100 ms: n starts take at least 100 ms x (2^(n-1) - 1).
    let most = (begin.elapsed().as_secs_f64() / 0.1 + 1.0).log2() + 3.0;
    assert!((1.0..=most).contains(&starts), "{starts} starts in {:?}", begin.elapsed());
}

#[test]
fn a_guest_that_dies_in_the_middle_of_a_response_cuts_it_visibly() {
    let (_file, config) = probe("\"die-mid-response\"", "", ONE);
    let weir = Weir::start(&config);
    let answer = weir.curl(&["/"]);
    assert_eq!(answer.status, 200);
    assert!(answer.body.len() < 1_000_000);
    assert_eq!(answer.exit, Some(18), "curl sees a transfer that ended early");
}

/// A ring violation ends the VM that made it; its neighbour goes on.
fn only_the_violator_dies(behaviour: &str) {
    let (_file, config) = probe(&format!("\"{behaviour}\""), "", ONE);
    let config = format!(
        "{config}[pool.good]\nimage = \"hello\"\n[[route]]\nname = \"good\"\npath = \"/good\"\npool = \"good\"\n"
    );
    let weir = Weir::start(&config);
    let before = weir.curl(&["/good"]);
    let answer = weir.curl(&["/"]);
    assert!([502, 503].contains(&answer.status), "{answer:?}");
    weir.wait_for("the violator's end", |line| line["fields"]["end"] == "virtio");
    let after = weir.curl(&["/good"]);
    assert_eq!((before.status, after.status), (404, 404), "hello has no /good, and says so");
    assert_eq!(before.header("x-weir-vm"), after.header("x-weir-vm"), "the same VM still answers");
}

#[test]
fn a_descriptor_loop_ends_only_that_vm() {
    only_the_violator_dies("ring-loop");
}

#[test]
fn an_out_of_range_descriptor_ends_only_that_vm() {
    only_the_violator_dies("ring-range");
}

#[test]
fn an_absurd_length_ends_only_that_vm() {
    only_the_violator_dies("ring-length");
}

#[test]
fn panic_fault_and_halt_are_told_apart() {
    let weir = Weir::start(&one_pool("hello", "", ONE));
    for (how, reason) in [("panic", "panic"), ("fault", "fault"), ("halt", "fault")] {
        // A POST is not retried, so that one request ends one VM.
        let answer = weir.curl(&["-X", "POST", &format!("/crash?how={how}")]);
        assert_eq!(
            (answer.status, answer.header("weir-error")),
            (502, Some("vm_failed")),
            "{how}: {answer:?}"
        );
        weir.wait_for(how, |line| line["fields"]["end"] == reason);
        assert_eq!(weir.curl(&["/"]).status, 200, "a clean VM answers after {how}");
    }
}

#[test]
fn a_request_in_flight_to_a_killed_vm_succeeds_elsewhere() {
    let weir = Weir::start(&one_pool("hello", "", "min = 1\nmax = 2\nidle_timeout = \"60s\""));
    weir.logged("vm ready");
    let address = weir.http;
    let client = std::thread::spawn(move || get(address, "/sleep?ms=1000"));
    weir.until_in_flight();
    weir.until_templates(1);
    let (_, vms) = launcher_and_vms(weir.pid());
    kill("KILL", vms[0]);
    let answer = client.join().expect("the client does not panic");
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(weir.metric("weir_vm_exits_total", "reason=\"died\""), 1.0);
}

#[test]
fn a_killed_launcher_is_replaced_and_requests_succeed() {
    let weir = Weir::start(&one_pool("hello", "", "min = 1\nmax = 2\nidle_timeout = \"60s\""));
    weir.logged("vm ready");
    let (launcher, _) = launcher_and_vms(weir.pid());
    kill("KILL", launcher);
    weir.logged("launcher started");
    let answer = get(weir.http, "/");
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_ne!(launcher_and_vms(weir.pid()).0, launcher);
}

#[test]
fn a_log_that_nobody_reads_any_more_holds_nothing_up() {
    // What crashes here is to go on doing so.
    let patient = "[pool.p.quarantine]\nkills = 100\n";
    let mut weir = Weir::start(&(one_pool("hello", "", ONE) + patient));
    weir.hang_up_on_log();
    // Each round logs a VM's start and its end.
    for _ in 0..3 {
        assert_eq!(get(weir.http, "/").status, 200);
        assert_eq!(weir.curl(&["-X", "POST", "/crash?how=panic"]).status, 502);
    }
    weir.signal("TERM");
    assert_eq!(weir.wait_in_silence().code(), Some(0));
}

#[test]
fn a_log_whose_reader_has_stalled_holds_nothing_up() {
    // Five lines of more than 200 bytes tell of a VM's life; this is twice what a pipe of 64 KiB holds.
    const LIVES: usize = 2 * 64 * 1024 / 1000;
    const AT_ONCE: usize = 12;
    let (limits, scale) = (
        "soft_limit = 1\nhard_limit = 1",
        // Windows as short as the timeout, so that nothing outlives its use.
        format!(
            "min = 0\nmax = {AT_ONCE}\nidle_timeout = \"1ms\"\nmax_down_rate = 1000.0\n\
             stable_window = \"1ms\"\npanic_window = \"1ms\""
        ),
    );
    let mut weir = Weir::start(&one_pool("hello", limits, &scale));
    for _ in 0..LIVES.div_ceil(AT_ONCE) {
        let statuses = at_once(AT_ONCE, weir.http, |address| get(address, "/sleep?ms=50").status);
        assert_eq!(statuses, [200; AT_ONCE]);
        weir.until("no VM is left", || weir.metric("weir_vm_instances", "") == 0.0);
    }
    let lives = weir.metric("weir_vm_start_duration_seconds_count", "");
    assert!(lives >= LIVES as f64, "{lives} lives");
    weir.signal("TERM");
    assert_eq!(weir.wait_in_silence().code(), Some(0));
}
