//! Pools that follow what their guests say.

use crate::client::Client;
use crate::probe::image;
use crate::support::{Weir, one_pool};

/// A pool that follows the probe's `jobs_waiting`, 10 of which are one VM's work.
fn start(scale: &str) -> (tempfile::NamedTempFile, Weir) {
    let file = image();
    let signal = "[pool.p.signal]\nscrape = \"/metrics\"\nmetric = 'jobs_waiting{kind=\"test\"}'\ntarget = 10\n\
                  interval = \"100ms\"\ntimeout = \"100ms\"\nweights = true";
    let path = file.path().display().to_string();
    let config = one_pool(&path, "args = [\"serve\"]", &format!("{scale}\n{signal}"));
    let weir = Weir::start(&config);
    weir.logged("template ready");
    (file, weir)
}

fn ready(weir: &Weir) -> f64 {
    weir.metric("weir_vm_instances", "state=\"ready\"")
}

#[test]
fn a_pool_grows_to_what_its_guests_ask_for_and_never_above_max() {
    let (_file, weir) = start("min = 0\nmax = 6\nidle_timeout = \"60s\"");
    assert_eq!(ready(&weir), 0.0, "nobody is asked, nothing is started");
    let mut client = Client::connect(weir.http);
    client.body("/gauge?n=35");
    weir.until("35 jobs are the work of 4 vms", || ready(&weir) == 4.0);
    assert_eq!(weir.metric("weir_signal_value", ""), 35.0);
    client.body(&format!("/gauge?n={}", u64::MAX));
    weir.until("a lie", || ready(&weir) == 6.0);
    let asked = || weir.metric("weir_signal_scrapes_total", "result=\"ok\"");
    let enough = asked() + 24.0;
    weir.until("it is asked again", || asked() >= enough);
    let instances = weir.metric("weir_vm_instances", "");
    assert!(instances <= 6.0, "{instances}");
    assert_eq!(weir.metric("weir_autoscaler_desired_instances", ""), 6.0);
}

#[test]
fn to_be_asked_keeps_no_vm() {
    let (_file, weir) = start("min = 0\nmax = 2\nidle_timeout = \"500ms\"");
    Client::connect(weir.http).body("/count");
    weir.logged("vm idle");
    assert!(weir.metric("weir_signal_scrapes_total", "result=\"ok\"") >= 1.0);
    assert_eq!(weir.metric("weir_vm_idle_checks_total", "result=\"working\""), 0.0);
}
