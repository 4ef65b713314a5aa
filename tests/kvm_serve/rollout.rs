//! Pools that are restarted and drained while they are used.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::channel;

use serde_json::Value;

use crate::client::Client;
use crate::support::{PATIENCE, Weir, get, kill, launcher_and_vms, one_pool};

/// Exit code, stdout and stderr of `weir` with these arguments, which are for the endpoint `admin`.
pub(crate) fn run(admin: SocketAddr, arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_weir"))
        .args(arguments)
        .args(["--admin", &admin.to_string()])
        .output()
        .expect("run weir");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn rollouts(weir: &Weir, result: &str) -> f64 {
    weir.metric("weir_rollouts_total", &format!("result=\"{result}\""))
}

/// The numbers of the VMs that there are, with their revisions.
pub(crate) fn vms(weir: &Weir) -> BTreeSet<(String, u64)> {
    let answer = get_local(weir, "/api/v1/vms");
    let vms = answer.as_array().expect("a list").iter();
    vms.map(|vm| {
        (vm["id"].as_str().expect("a number").to_owned(), vm["revision"].as_u64().expect("a number"))
    })
    .collect()
}

fn get_local(weir: &Weir, path: &str) -> Value {
    let output = Command::new("curl")
        .args(["-sS", "--max-time", "8", &format!("http://{}{path}", weir.admin)])
        .output()
        .expect("run curl");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// Ends the load, also where a test fails.
struct Load<'a>(&'a AtomicBool);

impl Drop for Load<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// What `task` returns while four clients send requests, of which each has to be answered by 200. Some
/// have been before the task begins.
pub(crate) fn under_load<T>(http: SocketAddr, task: impl FnOnce() -> T) -> T {
    let over = AtomicBool::new(false);
    let (served, first) = channel();
    std::thread::scope(|scope| {
        let load = Load(&over);
        for _ in 0..4 {
            let (served, over) = (served.clone(), &over);
            scope.spawn(move || {
                let mut client = Client::connect(http);
                while !over.load(Relaxed) {
                    let (status, body) = client.get("/sleep?ms=5");
                    assert_eq!(status, 200, "{body}");
                    // Only the first ones are waited for.
                    let _ = served.send(());
                }
            });
        }
        for _ in 0..4 {
            first.recv_timeout(PATIENCE).expect("an answer");
        }
        let outcome = task();
        drop(load);
        outcome
    })
}

/// Restarts a pool of two VMs, of which there may be up to `max`, under load.
fn restarted_under_load(max: u32) {
    let limits = "soft_limit = 2\nhard_limit = 4";
    let weir = Weir::start(&one_pool("hello", limits, &format!("min = 2\nmax = {max}")));
    weir.until("both are ready", || weir.metric("weir_vm_instances", "state=\"ready\"") == 2.0);
    let before = vms(&weir);
    let (code, out, errors) = under_load(weir.http, || run(weir.admin, &["restart", "p"]));
    assert_eq!(code, Some(0), "{errors}");
    assert!(out.starts_with("p: restart done, vms ") && out.contains("revision 2"), "{out}");
    assert!(!out.contains("new image"), "{out}");
    weir.until("the earlier ones are gone", || vms(&weir).is_disjoint(&before));
    assert!(vms(&weir).iter().all(|(_, revision)| *revision == 2));
    assert_eq!((rollouts(&weir, "done"), weir.metric("weir_vm_template_ready", "")), (1.0, 1.0));
}

#[test]
fn a_restart_fails_no_request() {
    restarted_under_load(8);
}

#[test]
fn a_restart_of_a_pool_at_its_maximum_fails_no_request() {
    restarted_under_load(2);
}

/// Puts `bytes` in the place of an image, all at once.
fn replace(image: &Path, bytes: &[u8]) {
    let beside = image.with_extension("new");
    std::fs::write(&beside, bytes).expect("write an image");
    std::fs::rename(beside, image).expect("replace an image");
}

#[test]
fn another_image_takes_over_and_a_broken_one_does_not() {
    let directory = tempfile::tempdir().expect("make a directory");
    let image = directory.path().join("image");
    replace(&image, weir_guest::HELLO);
    // To hello they mean nothing; probe crashes.
    let pool = "args = [\"crash-at-boot\"]\n[pool.p.health]\npath = \"/\"";
    let weir = Weir::start(&one_pool(image.to_str().expect("UTF-8"), pool, "min = 1\nmax = 4"));
    weir.logged("template ready");
    weir.until("it is ready", || weir.metric("weir_vm_instances", "state=\"ready\"") == 1.0);
    let before = vms(&weir);
    for (bytes, why) in [(&b"#!/bin/sh\n"[..], "no guest image"), (weir_guest::PROBE, "panicked")] {
        replace(&image, bytes);
        let (code, _, errors) = under_load(weir.http, || run(weir.admin, &["restart", "p"]));
        assert_eq!(code, Some(1), "{errors}");
        assert!(errors.contains("nothing was replaced") && errors.contains(why), "{errors}");
        assert_eq!(vms(&weir), before);
    }
    assert_eq!(rollouts(&weir, "failed"), 2.0);
    let mut changed = weir_guest::HELLO.to_vec();
    // Behind everything that is loaded.
    changed.extend_from_slice(b"another build");
    replace(&image, &changed);
    let (code, out, errors) = under_load(weir.http, || run(weir.admin, &["restart", "p"]));
    assert_eq!(code, Some(0), "{errors}");
    assert!(out.contains("new image"), "{out}");
    assert_eq!(get(weir.http, "/").status, 200);
    let vms = get_local(&weir, "/api/v1/vms");
    let ready = vms.as_array().expect("a list").iter().filter(|vm| vm["state"] == "ready");
    let kinds: Vec<_> = ready.map(|vm| &vm["kind"]).collect();
    assert!(
        !kinds.is_empty() && kinds.iter().all(|kind| *kind == "clone"),
        "of a template of its own: {vms}"
    );
}

#[test]
fn new_vms_that_die_are_rolled_back() {
    let weir = Weir::start(&one_pool("hello", "", "min = 1\nmax = 4"));
    weir.until("it is ready", || weir.metric("weir_vm_instances", "state=\"ready\"") == 1.0);
    let before = (vms(&weir), launcher_and_vms(weir.pid()).1);
    let (code, _, errors) = under_load(weir.http, || {
        std::thread::scope(|scope| {
            let admin = weir.admin;
            let restart = scope.spawn(move || run(admin, &["restart", "p"]));
            weir.logged("replacing vms");
            weir.logged("vm ready");
            let (_, now) = launcher_and_vms(weir.pid());
            let new = now.iter().find(|pid| !before.1.contains(pid)).expect("a new VM");
            kill("KILL", *new);
            restart.join().expect("weir restart does not panic")
        })
    });
    assert_eq!(code, Some(1), "{errors}");
    // Whichever is heard first: of its end, or by the request that it broke off with.
    let causes = ["SIGKILL", "refused a request"];
    assert!(errors.contains("rolled back") && causes.iter().any(|cause| errors.contains(cause)), "{errors}");
    assert_eq!((vms(&weir), rollouts(&weir, "rolled_back")), (before.0, 1.0));
}

#[test]
fn a_drain_waits_for_requests_and_further_ones_get_new_vms() {
    let weir = Weir::start(&one_pool("hello", "", "min = 0\nmax = 4\nidle_timeout = \"60s\""));
    weir.logged("template ready");
    let mut client = Client::connect(weir.http);
    assert_eq!(client.get("/").0, 200);
    let before = vms(&weir);
    assert_eq!(before.len(), 1);
    client.send("/sleep?ms=1000");
    weir.until_in_flight();
    let (code, out, _) = run(weir.admin, &["drain", "p", "--no-wait"]);
    assert_eq!((code, out.as_str()), (Some(0), "p: drain begun, vms 1\n"));
    assert_eq!(get(weir.http, "/").status, 200);
    assert!(vms(&weir).is_superset(&before), "the request is still there, with its VM");
    let (code, out, _) = run(weir.admin, &["drain", "p"]);
    assert_eq!((code, out.as_str()), (Some(0), "p: drain done, vms 1\n"));
    assert!(vms(&weir).is_disjoint(&before));
    assert_eq!(client.answer().0, 200);
    let (code, _, errors) = run(weir.admin, &["drain", "nobody"]);
    assert_eq!(code, Some(1));
    assert!(errors.contains("drain nobody") && errors.contains("no such pool"), "{errors}");
}

#[test]
fn ps_shows_pools_and_vms() {
    let weir = Weir::start(&one_pool("hello", "", "min = 1\nmax = 4"));
    weir.until("it is ready", || weir.metric("weir_vm_instances", "state=\"ready\"") == 1.0);
    let (code, out, errors) = run(weir.admin, &["ps"]);
    assert_eq!(code, Some(0), "{errors}");
    let lines: Vec<Vec<_>> = out.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!((lines[0][0], lines[1][0], lines[1][1]), ("POOL", "p", "1"), "{out}");
    assert_eq!((lines[3][0], lines[4][1], lines[4][2]), ("VM", "p", "ready"), "{out}");
}
