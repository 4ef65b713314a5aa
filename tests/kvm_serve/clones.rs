//! Templates: VMs are clones of one that has booted, and boot where there is none.

use std::collections::BTreeSet;
use std::time::Instant;

use serde_json::Value;

use crate::client::{Client, at_once};
use crate::probe::probe;
use crate::support::{PATIENCE, Weir, children, get, kill, launcher, launcher_and_vms, one_pool};

const FROM_ZERO: &str = "min = 0\nmax = 1\nidle_timeout = \"60s\"";

/// How many VMs started so.
fn started(weir: &Weir, kind: &str) -> f64 {
    weir.metric("weir_vm_start_duration_seconds_count", &format!("kind=\"{kind}\""))
}

fn cloned(weir: &Weir) -> f64 {
    started(weir, "prefork") + started(weir, "clone")
}

fn templates(weir: &Weir, result: &str) -> f64 {
    weir.metric("weir_vm_templates_made_total", &format!("result=\"{result}\""))
}

/// Why no template could be made, from the next line that says so.
fn no_template(weir: &Weir) -> String {
    let line = weir.logged("no template, vms boot");
    let word = |name: &str| line["fields"][name].as_str().unwrap_or_default().to_owned();
    format!("{}: {}", word("error"), word("cause"))
}

/// The first process below the launcher that has memory of this name mapped and is none of `others`.
fn process_with(weir: &Weir, memory: &str, others: &[u32]) -> u32 {
    let deadline = Instant::now() + PATIENCE;
    let mapping = format!("/memfd:{memory} ");
    loop {
        // There is a moment before the launcher's start, and one in which a dead one's successor is not there yet.
        let below = children(weir.pid()).into_iter().flat_map(children);
        let has = |pid: &u32| {
            let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
            maps.contains(&mapping)
        };
        if let Some(pid) = below.filter(|pid| !others.contains(pid)).find(has) {
            return pid;
        }
        assert!(Instant::now() < deadline, "no process has {memory} mapped");
    }
}

#[test]
fn a_request_from_zero_is_served_by_a_clone() {
    let mut weir = Weir::start(&one_pool("hello", "", FROM_ZERO));
    weir.logged("template ready");
    assert_eq!(weir.metric("weir_vm_template_ready", "pool=\"p\""), 1.0);
    assert_eq!(templates(&weir, "ok"), 1.0);
    assert_eq!(get(weir.http, "/").status, 200);
    assert_eq!(weir.access_line()["start"], "clone");
    assert_eq!((cloned(&weir), started(&weir, "cold")), (1.0, 0.0));
    assert_eq!(get(weir.http, "/").status, 200);
    assert_eq!(weir.access_line()["start"], "warm");
}

#[test]
fn a_template_whose_canary_is_not_healthy_is_not_used() {
    let health = "[pool.p.health]\npath = \"/\"";
    let (_file, config) = probe("\"deaf\"", health, FROM_ZERO);
    let weir = Weir::start(&config);
    let why = no_template(&weir);
    assert!(why.starts_with("canary is not healthy: "), "{why}");
    assert_eq!(weir.metric("weir_vm_template_ready", "pool=\"p\""), 0.0);
    assert!(templates(&weir, "failed") >= 1.0);
    assert_eq!(templates(&weir, "ok"), 0.0);
    assert_eq!(get(weir.http, "/").status, 502, "the guest resets every connection");
    assert!(started(&weir, "cold") >= 1.0, "VMs boot");
    assert_eq!(cloned(&weir), 0.0);
}

#[test]
fn a_canary_that_answers_with_an_error_is_not_healthy() {
    let weir = Weir::start(&one_pool("hello", "[pool.p.health]\npath = \"/no-such-page\"", FROM_ZERO));
    let why = no_template(&weir);
    assert!(why.contains("status 404"), "{why}");
    assert_eq!(get(weir.http, "/").status, 200, "weir serves all the same");
    assert_eq!((cloned(&weir), started(&weir, "cold")), (0.0, 1.0));
}

#[test]
fn a_guest_that_is_never_idle_has_no_template_but_starts() {
    let (_file, config) = probe("\"spin\"", "start_timeout = \"300ms\"", "min = 1\nmax = 1");
    let weir = Weir::start(&config);
    // Its VM and its template start at the same time.
    let said = BTreeSet::from([started_or_not(&weir), started_or_not(&weir)]);
    let expected = ["no template, vms boot: template not ready and idle within 300ms", "vm ready: cold"];
    assert_eq!(said, expected.map(String::from).into());
    assert_eq!(weir.metric("weir_vm_template_ready", "pool=\"p\""), 0.0);
}

fn started_or_not(weir: &Weir) -> String {
    let line = weir.wait_for("a vm or no template", |line| {
        let message = &line["fields"]["message"];
        message == "vm ready" || message == "no template, vms boot"
    });
    let word = |name: &str| line["fields"][name].as_str().map(str::to_owned);
    format!("{}: {}", word("message").unwrap_or_default(), word("error").or(word("kind")).unwrap_or_default())
}

#[test]
fn a_template_that_is_killed_while_it_is_made_is_made_again() {
    // It would never be READY, so it is there to be killed for as long as it takes.
    let (_file, config) = probe("\"never-ready\"", "start_timeout = \"60s\"", FROM_ZERO);
    let weir = Weir::start(&config);
    let first = process_with(&weir, "p", &[]);
    kill("KILL", first);
    let why = no_template(&weir);
    assert!(why.contains("signal 9 (SIGKILL)"), "{why}");
    process_with(&weir, "p", &[first]);
}

#[test]
fn a_canary_that_is_killed_leaves_cold_boots_until_there_is_another() {
    let health = "[pool.p.health]\npath = \"/hold?ms=500\"\ntimeout = \"5s\"";
    let (_file, config) = probe("\"serve\"", health, FROM_ZERO);
    let mut weir = Weir::start(&config);
    kill("KILL", process_with(&weir, "canary", &[]));
    let why = no_template(&weir);
    // In the middle of its start or of its check.
    assert!(why.contains("canary") && why.contains("signal 9 (SIGKILL)"), "{why}");
    // The next one passes no sooner than its health check takes: until then VMs boot.
    let (status, vm) = (get(weir.http, "/").status, weir.access_line());
    assert_eq!((status, &vm["start"]), (200, &Value::from("cold")));
    weir.logged("template ready");
    assert_eq!((templates(&weir, "failed"), templates(&weir, "ok")), (1.0, 1.0));
    // Nobody else is in the pool's only place.
    kill("KILL", launcher_and_vms(weir.pid()).1[0]);
    weir.logged("vm ended unasked");
    assert_eq!(get(weir.http, "/").status, 200);
    assert_eq!(weir.access_line()["start"], "clone");
}

/// A weir with `count` clones of hello, each of which has answered.
fn with_clones(count: usize) -> (Weir, Vec<u32>) {
    let weir = Weir::start(&one_pool(
        "hello",
        "soft_limit = 1\nhard_limit = 1",
        &format!("min = 0\nmax = {count}\nidle_timeout = \"60s\""),
    ));
    weir.logged("template ready");
    let statuses = all_at_once(&weir, count, "/sleep?ms=200");
    assert_eq!(statuses, vec![200; count]);
    assert_eq!((cloned(&weir), started(&weir, "cold")), (count as f64, 0.0));
    let (_, vms) = launcher_and_vms(weir.pid());
    assert_eq!(vms.len(), count);
    (weir, vms)
}

fn all_at_once(weir: &Weir, count: usize, path: &str) -> Vec<u16> {
    at_once(count, weir.http, |address| Client::connect(address).get(path).0)
}

#[test]
fn clones_that_are_killed_take_nobody_along() {
    let (weir, vms) = with_clones(4);
    vms[..2].iter().for_each(|pid| kill("KILL", *pid));
    weir.until("both are noticed", || weir.metric("weir_vm_exits_total", "reason=\"died\"") == 2.0);
    weir.until("two are left", || weir.metric("weir_vm_instances", "state=\"ready\"") == 2.0);
    assert_eq!(all_at_once(&weir, 4, "/sleep?ms=200"), vec![200; 4]);
    let (_, now) = launcher_and_vms(weir.pid());
    assert!(vms[2..].iter().all(|pid| now.contains(pid)), "the others run on: {vms:?} {now:?}");
    assert_eq!(weir.metric("weir_vm_template_ready", "pool=\"p\""), 1.0, "the template is not to blame");
    assert_eq!((cloned(&weir), started(&weir, "cold")), (6.0, 0.0));
}

#[test]
fn the_template_outlives_the_launcher() {
    let (weir, vms) = with_clones(2);
    kill("KILL", launcher(weir.pid()));
    weir.logged("launcher started");
    assert_eq!(all_at_once(&weir, 2, "/sleep?ms=200"), vec![200; 2]);
    let (_, now) = launcher_and_vms(weir.pid());
    assert!(vms.iter().all(|pid| !now.contains(pid)), "clones end with their launcher");
    assert_eq!((cloned(&weir), started(&weir, "cold")), (4.0, 0.0));
    assert_eq!(templates(&weir, "ok"), 1.0);
}
