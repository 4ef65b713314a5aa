//! VMs that take all they can get do not slow those of another pool beyond their share.
//!
//! How slow a neighbour gets is measured in one run, as a ratio: turn by turn the bad VMs' processes are stopped and
//! continued, and the neighbour is asked the same in both states. Whatever else the machine does is in both.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crate::client::Client;
use crate::probe::image;
use crate::support::{Weir, kill, launcher_and_vms};

const BAD: &str = "bad.test";
const GOOD: &str = "good.test";
const ROUNDS: usize = 8;
/// Requests in each state and round.
const REQUESTS: usize = 25;
/// How many times its time a request may take: generous, for this machine has other work too.
const SLOWER: f64 = 4.0;

/// A bad pool and its neighbour. `behaviour` is the bad guest's, `limits` and `scale` are lines of its pool's tables.
fn start(behaviour: &str, limits: &str, scale: &str) -> (tempfile::NamedTempFile, Weir) {
    let file = image();
    let path = file.path().display();
    let weir = Weir::start(&format!(
        "[[listener]]\naddress = \"127.0.0.1:0\"\n[admin]\naddress = \"127.0.0.1:0\"\n\
         [pool.bad]\nimage = \"{path}\"\nargs = [\"{behaviour}\"]\nsoft_limit = 1\nhard_limit = 1\n\
         start_timeout = \"1s\"\n[pool.bad.limits]\n{limits}\n[pool.bad.scale]\n{scale}\n\
         [pool.good]\nimage = \"{path}\"\n[pool.good.scale]\nmin = 0\nmax = 1\n\
         [[route]]\nname = \"bad\"\nhost = \"{BAD}\"\npool = \"bad\"\n\
         [[route]]\nname = \"good\"\nhost = \"{GOOD}\"\npool = \"good\"\n"
    ));
    (file, weir)
}

/// Median time of a request to the good pool beside the `bad` VMs, in that without them.
fn slowdown(weir: &Weir, bad: &[u32]) -> f64 {
    let mut client = Client::connect_to(weir.http, GOOD);
    assert_eq!(client.body("/"), "ok");
    let (mut alone, mut beside) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        for (signal, times) in [("STOP", &mut alone), ("CONT", &mut beside)] {
            bad.iter().for_each(|pid| kill(signal, *pid));
            for _ in 0..REQUESTS {
                let begin = Instant::now();
                assert_eq!(client.body("/"), "ok");
                times.push(begin.elapsed().as_secs_f64());
            }
        }
    }
    let median = |times: &mut Vec<f64>| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    };
    let (beside, alone) = (median(&mut beside), median(&mut alone));
    println!("beside: {:.3} ms, alone: {:.3} ms", beside * 1e3, alone * 1e3);
    beside / alone
}

fn assert_bearable(slowdown: f64) {
    assert!(slowdown < SLOWER, "the neighbour takes {slowdown:.1} times as long");
}

#[test]
fn spinning_vms_have_their_quota() {
    const SPINNERS: usize = 3;
    let (_file, weir) = start("spin-on-request", "cpu_quota = 0.1", "min = 0\nmax = 3");
    let waiting: Vec<Client> = (0..SPINNERS)
        .map(|_| {
            let mut client = Client::connect_to(weir.http, BAD);
            client.send("/");
            client
        })
        .collect();
    let in_flight = || weir.metric("weir_http_requests_in_flight", "");
    weir.until("all spin", || {
        weir.metric("weir_vm_instances", "pool=\"bad\",state=\"ready\"") == SPINNERS as f64
            && in_flight() == 3.0
    });
    weir.until_templates(2);
    let (_, bad) = launcher_and_vms(weir.pid());
    assert_bearable(slowdown(&weir, &bad));
    drop(waiting);
}

#[test]
fn a_flooding_vm_has_its_rate() {
    let limits = "cpu_quota = 0.2\nsend_packets = 1000\nsend_rate = \"1MiB\"";
    let (_file, weir) = start("flood", limits, "min = 1\nmax = 1");
    weir.logged("vm ready");
    weir.until_templates(2);
    let (_, bad) = launcher_and_vms(weir.pid());
    assert_bearable(slowdown(&weir, &bad));
    assert_eq!(weir.metric("weir_vm_exits_total", "pool=\"bad\""), 0.0, "it is slowed, not ended");
}

#[test]
fn a_hoarding_vm_has_its_own_memory_and_no_more() {
    let (_file, weir) = start("serve", "cpu_quota = 0.2", "min = 1\nmax = 1");
    weir.logged("vm ready");
    weir.until_templates(2);
    let (_, bad) = launcher_and_vms(weir.pid());
    let mut hoarder = Client::connect_to(weir.http, BAD);
    let (full, done) = (|status| status == 507, AtomicBool::new(false));
    let kept = (0..32).take_while(|_| !full(hoarder.get("/leave?n=1048576").0)).count();
    assert!((4..16).contains(&kept), "{kept} MiB of the VM's 16");
    std::thread::scope(|scope| {
        // Goes on touching what is left.
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                hoarder.get("/eat?n=65536");
            }
        });
        let slowdown = slowdown(&weir, &bad);
        done.store(true, Ordering::Relaxed);
        assert_bearable(slowdown);
    });
    assert_eq!(weir.metric("weir_vm_exits_total", "pool=\"bad\""), 0.0);
}
