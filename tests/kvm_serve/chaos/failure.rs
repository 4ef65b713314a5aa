//! What goes wrong.

use std::net::Shutdown;
use std::process::Command;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

use crate::client::Client;
use crate::support::{Weir, children, launcher};

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Failure {
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
    /// All VMs are killed while the launcher is stopped, so that no other can be started until it is replaced.
    LauncherStopped,
    /// All VMs are killed while the launcher has no file descriptors left, so that it refuses to start others.
    StartsRefused,
}

/// How many of the requests that failures made ended otherwise than with 200.
#[derive(Debug, Default)]
pub(super) struct Losses {
    /// Of the guests that panicked.
    pub(super) panics: u64,
    /// Of the clients that went away.
    pub(super) gone: u64,
}

impl Failure {
    /// Has it happen to `weir`.
    pub(super) fn strike(self, weir: &Weir, rng: &mut StdRng, losses: &mut Losses) {
        match self {
            Self::Killed => signal_a_vm(weir, rng, "KILL"),
            Self::Stopped => signal_a_vm(weir, rng, "STOP"),
            Self::Panics => {
                let status = weir.curl(&["-X", "POST", "/crash?how=panic"]).status;
                // It is not retried, so its client is told; or the VM that it came to had failed before.
                assert!([502, 503].contains(&status), "{status}");
                losses.panics += 1;
            }
            Self::LinkDown => set_a_link_down(weir, rng),
            Self::ClientGone => {
                leave_in_the_middle(weir);
                losses.gone += 1;
            }
            Self::LauncherKilled => kill_the_launcher(weir),
            Self::LauncherStopped => stop_the_launcher(weir),
            Self::StartsRefused => refuse_starts(weir),
        }
    }
}

/// Signals a process that may have ended meanwhile.
fn send(signal: &str, pid: u32) {
    let _ = Command::new("kill").args(["-s", signal, &pid.to_string()]).output().expect("run kill");
}

fn signal_a_vm(weir: &Weir, rng: &mut StdRng, signal: &str) {
    // Between two launchers there is none.
    let children_of_weir = children(weir.pid());
    let [launcher] = children_of_weir[..] else { return };
    if let Some(vm) = children(launcher).choose(rng) {
        send(signal, *vm);
    }
}

fn kill_children(launcher: u32) {
    children(launcher).into_iter().for_each(|child| send("KILL", child));
}

/// The launcher, which has begun to work.
fn working_launcher(weir: &Weir) -> u32 {
    let works = |launchers: &[u32]| launchers.len() == 1 && !children(launchers[0]).is_empty();
    weir.until("a launcher with children", || works(&children(weir.pid())));
    launcher(weir.pid())
}

fn kill_the_launcher(weir: &Weir) {
    let killed = working_launcher(weir);
    send("KILL", killed);
    // Until then it would pass for the one that works.
    weir.until("the launcher's end", || !children(weir.pid()).contains(&killed));
}

fn stop_the_launcher(weir: &Weir) {
    let stopped = working_launcher(weir);
    send("STOP", stopped);
    kill_children(stopped);
    weir.until("the stopped launcher's successor", || {
        let launchers = children(weir.pid());
        !launchers.is_empty() && !launchers.contains(&stopped)
    });
}

fn refuse_starts(weir: &Weir) {
    // More than one, after which no request waits for a guest that fails.
    const REFUSED: f64 = 2.0;
    let launcher = working_launcher(weir);
    let refused = || weir.metric("weir_vm_exits_total", "reason=\"start_failed\"");
    let before = refused();
    limit_files(launcher, 0);
    weir.until("starts that fail", || {
        // Again and again, since one may have been under way.
        kill_children(launcher);
        refused() >= before + REFUSED
    });
    limit_files(launcher, 1024);
}

/// How many file descriptors a process may have; it keeps those that it has.
fn limit_files(pid: u32, most: u32) {
    let arguments = [format!("--pid={pid}"), format!("--nofile={most}:")];
    let status = Command::new("prlimit").args(arguments).status().expect("run prlimit");
    assert!(status.success(), "limit the files of {pid}");
}

fn in_namespace(weir: &Weir, arguments: &[&str]) -> String {
    let pid = weir.pid().to_string();
    let output = Command::new("nsenter").args(["-t", &pid, "-n", "ip"]).args(arguments).output();
    String::from_utf8(output.expect("run nsenter").stdout).expect("ip writes text")
}

/// Names of weir's TAPs.
pub(super) fn links(weir: &Weir) -> Vec<String> {
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
