//! A pool under steady load while its processes, its guests and its links fail at random, from fixed seeds.
//!
//! No GET may fail: capacity can always be rebuilt well within the queue's timeout. A failure is followed by the next
//! one when the clients have had some answers, so that failures overlap but the pool is not beaten to death. At the end
//! every request is in one counter, and nothing is left over.

mod failure;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread;

use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use self::failure::Failure::*;
use self::failure::{Failure, Losses, links};
use crate::client::Client;
use crate::support::{PATIENCE, Weir, one_pool};

const CLIENTS: usize = 4;
const MAX: u32 = 6;
/// Answers between two of them.
const BREATH: u64 = 40;

struct Chaos {
    weir: Weir,
    rng: StdRng,
    /// Requests that were answered, and their clients know how.
    answered: AtomicU64,
    over: AtomicBool,
}

/// Ends the load, also where a failure is not survived.
struct EndOfLoad<'a>(&'a AtomicBool);

impl Drop for EndOfLoad<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

/// Has each of `failures` happen as often as it says, in an order that the seed decides.
fn run(seed: u64, failures: &[(Failure, usize)]) {
    let health = "soft_limit = 2\nhard_limit = 8\nstart_timeout = \"2s\"\n[pool.p.health]\npath = \"/\"\ninterval = \"200ms\"\ntimeout = \"200ms\"\nunhealthy_after = 2";
    let scale = format!(
        "min = 2\nmax = {MAX}\nidle_timeout = \"500ms\"\nstable_window = \"1s\"\npanic_window = \"500ms\""
    );
    let weir = Weir::start(&one_pool("hello", health, &scale));
    weir.until_templates(1);
    let mut rng = StdRng::seed_from_u64(seed);
    let mut failures: Vec<_> =
        failures.iter().flat_map(|(failure, times)| std::iter::repeat_n(*failure, *times)).collect();
    failures.shuffle(&mut rng);
    let mut chaos = Chaos { weir, rng, answered: AtomicU64::new(0), over: AtomicBool::new(false) };
    let mut losses = Losses::default();
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
        let _end = EndOfLoad(over);
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(load)).collect();
        for failure in failures {
            failure.strike(&chaos.weir, &mut chaos.rng, &mut losses);
            let enough = answered.load(SeqCst) + BREATH;
            chaos.weir.until(&format!("answers after {failure:?}"), || {
                answered.load(SeqCst) >= enough || clients.iter().any(thread::ScopedJoinHandle::is_finished)
            });
        }
    });
    chaos.settle(&losses);
}

#[test]
fn processes_and_guests_that_end() {
    run(1, &[(Killed, 8), (Panics, 8), (ClientGone, 8)]);
}

#[test]
fn launchers_that_end() {
    run(2, &[(LauncherKilled, 3), (Killed, 3), (Panics, 2)]);
}

#[test]
fn launchers_that_hang() {
    run(6, &[LauncherStopped, Killed, Stopped, Panics, LinkDown].map(|failure| (failure, 1)));
}

#[test]
fn starts_that_fail() {
    run(7, &[(StartsRefused, 2), (Killed, 1), (Panics, 1)]);
}

#[test]
fn processes_that_hang() {
    run(3, &[(Stopped, 6), (Killed, 6)]);
}

#[test]
fn links_that_go_down() {
    run(4, &[(LinkDown, 6), (Killed, 6)]);
}

#[test]
fn everything_at_once() {
    let each = [Killed, Stopped, Panics, LinkDown, ClientGone].map(|failure| (failure, 2));
    // But for launchers that hang, each of which takes more than three seconds.
    let once = [LauncherKilled, StartsRefused].map(|failure| (failure, 1));
    run(11, &[&each[..], &once[..]].concat());
}

impl Chaos {
    /// When all is over, everything adds up.
    fn settle(mut self, losses: &Losses) {
        let Losses { panics, gone } = *losses;
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
