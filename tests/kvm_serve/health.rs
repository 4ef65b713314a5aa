//! VMs that stop working without ending, and requests that end them: what clients see.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::client::{Client, at_once};
use crate::support::{Weir, get, kill, launcher_and_vms, one_pool};

const HEALTH: &str = "[pool.p.health]\ntimeout = \"300ms\"\ninterval = \"1s\"\n";

/// One pool that is checked often; `limits` and `scale` as in [`one_pool`].
fn start(limits: &str, scale: &str) -> Weir {
    Weir::start(&(one_pool("hello", limits, scale) + HEALTH))
}

#[test]
fn no_get_fails_when_a_vm_is_stopped_under_load_and_it_is_replaced() {
    const CLIENTS: usize = 6;
    let weir = start("soft_limit = 2", "min = 2\nmax = 4\nidle_timeout = \"60s\"");
    weir.until("two are ready", || weir.metric("weir_vm_instances", "state=\"ready\"") >= 2.0);
    weir.until_templates(1);
    let (_, vms) = launcher_and_vms(weir.pid());
    let replaced = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let clients = scope.spawn(|| {
            at_once(CLIENTS, weir.http, |address| {
                let mut client = Client::connect(address);
                let mut answers = 0;
                while !replaced.load(Ordering::Relaxed) || answers < 20 {
                    assert_eq!(client.body("/sleep?ms=10"), "slept");
                    answers += 1;
                }
                answers
            })
        });
        weir.until("requests are answered", || {
            weir.metric("weir_http_requests_total", "code=\"200\"") >= 50.0
        });
        kill("STOP", vms[0]);
        weir.until("it is killed", || weir.metric("weir_vm_ejections_total", "reason=\"lost\"") == 1.0);
        weir.until("two are ready again", || weir.metric("weir_vm_instances", "state=\"ready\"") >= 2.0);
        replaced.store(true, Ordering::Relaxed);
        let answers = clients.join().expect("no client panics");
        assert_eq!(answers.len(), CLIENTS);
    });
    weir.until("its end is known", || weir.metric("weir_vm_exits_total", "reason=\"died\"") == 1.0);
    assert!(!launcher_and_vms(weir.pid()).1.contains(&vms[0]));
}

#[test]
fn a_guest_that_computes_for_longer_than_checks_take_is_not_killed() {
    let weir = start("", "min = 1\nmax = 1\nidle_timeout = \"60s\"");
    weir.logged("vm ready");
    weir.until_templates(1);
    let mut client = Client::connect(weir.http);
    // Longer than it takes to kill one that is dead.
    assert_eq!(client.body("/spin?ms=3000"), "spun");
    assert_eq!(weir.metric("weir_vm_ejections_total", "reason=\"lost\""), 0.0);
    assert!(weir.metric("weir_health_checks_total", "result=\"silent\"") >= 1.0);
}

#[test]
fn vms_in_service_are_checked_and_idle_ones_still_go() {
    let weir = start("", "min = 0\nmax = 1\nidle_timeout = \"2500ms\"");
    assert_eq!(Client::connect(weir.http).body("/sleep?ms=1"), "slept");
    weir.until("it was checked", || weir.metric("weir_health_checks_total", "result=\"ok\"") >= 1.0);
    weir.until("it has gone", || weir.metric("weir_vm_instances", "") == 0.0);
    assert_eq!(weir.metric("weir_vm_ejections_total", ""), 0.0);
    // Stopped, or killed because a slow machine took too long for it.
    assert_eq!(weir.metric("weir_vm_exits_total", ""), 1.0);
}

#[test]
fn a_request_that_kills_vms_is_refused_and_others_are_served() {
    const QUARANTINE: &str = "[pool.p.quarantine]\nkills = 2\nduration = \"30s\"\n";
    let weir = Weir::start(&(one_pool("hello", "", "min = 1\nmax = 2\nidle_timeout = \"60s\"") + QUARANTINE));
    weir.logged("vm ready");
    let kill = || {
        let answer = get(weir.http, "/crash?how=panic");
        let retry_after = answer.header("retry-after").map(str::to_owned);
        (answer.status, answer.header("weir-error").map(str::to_owned), retry_after.is_some())
    };
    let refused = (503, Some("quarantined".to_owned()), true);
    // It is idempotent, so weir itself tries it on a second VM, and not on a third.
    assert_eq!(kill(), refused);
    let answers = at_once(8, weir.http, |address| {
        let mut client = Client::connect(address);
        (0..20).for_each(|_| assert_eq!(client.body("/sleep?ms=1"), "slept"));
        (0..5).map(|_| get(address, "/crash?how=panic").status).collect::<Vec<_>>()
    });
    assert!(answers.concat().iter().all(|status| *status == 503), "{answers:?}");
    assert_eq!(kill(), refused);
    assert_eq!(weir.metric("weir_vm_exits_total", "reason=\"panic\""), 2.0, "no crash loop");
    assert_eq!(weir.metric("weir_quarantine_entries", "pool=\"p\""), 1.0);
    assert_eq!(weir.metric("weir_requests_shed_total", "reason=\"quarantined\""), 42.0);
    assert_eq!(weir.curl(&["-X", "POST", "/crash?how=halt"]).status, 502, "another request");
}
