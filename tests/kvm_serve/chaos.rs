//! A pool under steady load while its processes, its guests and its links fail at random, from fixed seeds.
//!
//! No GET may fail: capacity can always be rebuilt well within the queue's timeout. A failure is followed by the next
//! one when the clients have had some answers, so that failures overlap but the pool is not beaten to death. At the end
//! every request is in one counter, and nothing is left over.

use std::net::Shutdown;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread;

use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

use crate::client::Client;
use crate::support::{PATIENCE, Weir, launcher_and_vms, one_pool};

const CLIENTS: usize = 4;
const MAX: u32 = 6;
/// Answers between two of them.
const BREATH: u64 = 40;

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Failure {
    /// A VM's process is killed.
    Killed,
    /// A VM's process is stopped, and says nothing any more.
    Stopped,
    /// A guest panics.
    Panics,
    /// A link is set down.
    LinkDown,
    /// A client goes away in the middle.
    ClientGone,
    /// The launcher is killed, and all VMs with it.
    LauncherKilled,
}

struct Chaos {
    weir: Weir,
    rng: StdRng,
    /// Requests that were answered, and their clients know how.
    answered: AtomicU64,
    over: AtomicBool,
}

/// `steps` failures out of `failures`.
fn run(seed: u64, steps: usize, failures: &[Failure]) {
    let health = "soft_limit = 2\nhard_limit = 8\n[pool.p.health]\npath = \"/\"\ninterval = \"200ms\"\ntimeout = \"200ms\"\nunhealthy_after = 2";
    let scale = format!(
        "min = 2\nmax = {MAX}\nidle_timeout = \"500ms\"\nstable_window = \"1s\"\npanic_window = \"500ms\""
    );
    let weir = Weir::start(&one_pool("hello", health, &scale));
    weir.until_templates(1);
    let rng = StdRng::seed_from_u64(seed);
    let mut chaos = Chaos { weir, rng, answered: AtomicU64::new(0), over: AtomicBool::new(false) };
    let (mut panics, mut gone) = (0, 0);
    let (answered, over, address) = (&chaos.answered, &chaos.over, chaos.weir.http);
    let load = || {
        let mut client = Client::connect(address);
        while !over.load(SeqCst) {
            // Some keep a VM busy for a while.
            let path = if answered.load(SeqCst) % 8 == 0 { "/sleep?ms=20" } else { "/" };
            let (status, body) = client.get(path);
            assert_eq!(status, 200, "GET {path}: {body}");
            answered.fetch_add(1, SeqCst);
        }
    };
    thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(load)).collect();
        for _ in 0..steps {
            let failure = *failures.choose(&mut chaos.rng).expect("there are failures to choose from");
            match failure {
                Failure::Killed => signal_a_vm(&chaos.weir, &mut chaos.rng, "KILL"),
                Failure::Stopped => signal_a_vm(&chaos.weir, &mut chaos.rng, "STOP"),
                Failure::Panics => {
                    let status = chaos.weir.curl(&["-X", "POST", "/crash?how=panic"]).status;
                    // It is not retried, so its client is told; or the VM that it came to had failed before.
                    assert!([502, 503].contains(&status), "{status}");
                    panics += 1;
                }
                Failure::LinkDown => set_a_link_down(&chaos.weir, &mut chaos.rng),
                Failure::ClientGone => {
                    leave_in_the_middle(&chaos.weir);
                    gone += 1;
                }
                Failure::LauncherKilled => send("KILL", launcher_and_vms(chaos.weir.pid()).0),
            }
            let enough = answered.load(SeqCst) + BREATH;
            chaos.weir.until(&format!("answers after {failure:?}"), || {
                answered.load(SeqCst) >= enough || clients.iter().any(thread::ScopedJoinHandle::is_finished)
            });
        }
        over.store(true, SeqCst);
    });
    chaos.settle(panics, gone);
}

#[test]
fn processes_and_guests_that_end() {
    run(1, 24, &[Failure::Killed, Failure::Panics, Failure::ClientGone]);
}

#[test]
fn launchers_that_end() {
    run(2, 8, &[Failure::LauncherKilled, Failure::Killed, Failure::Panics]);
}

#[test]
fn processes_that_hang() {
    run(3, 12, &[Failure::Stopped, Failure::Killed]);
}

#[test]
fn links_that_go_down() {
    run(4, 12, &[Failure::LinkDown, Failure::Killed]);
}

#[test]
fn everything_at_once() {
    use Failure::{ClientGone, Killed, LauncherKilled, LinkDown, Panics, Stopped};
    run(5, 20, &[Killed, Stopped, Panics, LinkDown, ClientGone, LauncherKilled]);
}

/// Signals a process that may have ended meanwhile.
fn send(signal: &str, pid: u32) {
    let _ = Command::new("kill").args(["-s", signal, &pid.to_string()]).output().expect("run kill");
}

fn signal_a_vm(weir: &Weir, rng: &mut StdRng, signal: &str) {
    // Between two launchers there is none.
    let children = crate::support::children(weir.pid());
    let [launcher] = children[..] else { return };
    let vms = crate::support::children(launcher);
    if let Some(vm) = vms.choose(rng) {
        send(signal, *vm);
    }
}

fn in_namespace(weir: &Weir, arguments: &[&str]) -> String {
    let pid = weir.pid().to_string();
    let output = Command::new("nsenter").args(["-t", &pid, "-n", "ip"]).args(arguments).output();
    String::from_utf8(output.expect("run nsenter").stdout).expect("ip writes text")
}

/// Names of weir's TAPs.
fn links(weir: &Weir) -> Vec<String> {
    let text = in_namespace(weir, &["-o", "link", "show"]);
    let names = text.lines().filter_map(|line| line.split(": ").nth(1));
    names.filter(|name| name.starts_with("weir")).map(|name| name.trim().to_owned()).collect()
}

fn set_a_link_down(weir: &Weir, rng: &mut StdRng) {
    if let Some(link) = links(weir).choose(rng) {
        in_namespace(weir, &["link", "set", link, "down"]);
    }
}

fn leave_in_the_middle(weir: &Weir) {
    let mut client = Client::connect(weir.http);
    client.send("/sleep?ms=300");
    let before = weir.metric("weir_http_requests_total", "code=\"499\"");
    client.shut_down(Shutdown::Both);
    weir.until("weir notices", || weir.metric("weir_http_requests_total", "code=\"499\"") > before);
}

impl Chaos {
    /// When all is over, everything adds up.
    fn settle(mut self, panics: u64, gone: u64) {
        let weir = &mut self.weir;
        let total = |labels: &str| weir.metric("weir_http_requests_total", labels);
        weir.until("no request is in flight", || weir.metric("weir_http_requests_in_flight", "") == 0.0);
        let answered = self.answered.load(SeqCst) as f64;
        assert_eq!(total("code=\"200\""), answered);
        assert_eq!(total("code=\"499\""), gone as f64);
        assert_eq!(total("code=\"502\"") + total("code=\"503\""), panics as f64);
        assert_eq!(total(""), answered + (panics + gone) as f64);
        weir.until("the pool is as small as it may be, and works", || {
            let count = |state| weir.metric("weir_vm_instances", &format!("state=\"{state}\""));
            (count("ready"), count("starting") + count("draining") + count("stopping")) == (2.0, 0.0)
        });
        let links = links(weir).len();
        assert!(links <= 4 * MAX as usize, "{links} links for at most {MAX} VMs");
        weir.signal("TERM");
        assert_eq!(weir.wait_in_silence().code(), Some(0), "it ends within {PATIENCE:?}");
    }
}
