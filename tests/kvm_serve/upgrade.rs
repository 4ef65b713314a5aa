//! Another binary in the place of the one that serves.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Sender, channel};

use crate::cleanup::{all_gone, groups};
use crate::client::Client;
use crate::rollout::run;
use crate::support::{PATIENCE, Weir, children, get, kill, launcher, one_pool};

/// A weir that no test has started; killed when dropped.
pub(crate) struct Heir(u32);

impl Heir {
    pub(crate) fn pid(&self) -> u32 {
        self.0
    }
}

impl Drop for Heir {
    fn drop(&mut self) {
        if Path::new(&format!("/proc/{}/exe", self.0)).exists() {
            kill("KILL", self.0);
        }
    }
}

/// The weir that has just been started in `weir`'s place.
fn heir(weir: &Weir) -> Heir {
    let pid = weir.logged("started a new weir")["fields"]["pid"].as_u64().expect("a process id");
    Heir(u32::try_from(pid).expect("a process id"))
}

/// A weir that serves in the place of `pid`, which has been asked for that.
pub(crate) fn upgraded(weir: &Weir, pid: u32) -> Heir {
    kill("QUIT", pid);
    let heir = heir(weir);
    weir.logged("the new weir serves");
    heir
}

/// Requests one after another, on connections that are used until weir says that they end.
fn keep_alive(http: std::net::SocketAddr, over: &AtomicBool, served: &Sender<()>) {
    let mut client = Client::connect(http);
    while !over.load(Relaxed) {
        client.send("/sleep?ms=5");
        let (status, body, closes) = client.last_answer();
        assert_eq!(status, 200, "{body}");
        if closes {
            client = Client::connect(http);
        }
        // Only some are waited for.
        let _ = served.send(());
    }
}

/// Requests one after another, each on a connection of its own.
fn one_by_one(http: std::net::SocketAddr, over: &AtomicBool, served: &Sender<()>) {
    while !over.load(Relaxed) {
        let answer = get(http, "/");
        assert_eq!(answer.status, 200, "{answer:?}");
        let _ = served.send(());
    }
}

/// Ends the load, also where a test fails.
struct Load<'a>(&'a AtomicBool);

impl Drop for Load<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// What `task` returns while clients send requests, none of which may fail.
fn under_load<T>(weir: &Weir, task: impl FnOnce() -> T) -> T {
    let (over, http) = (AtomicBool::new(false), weir.http);
    let (served, answers) = channel();
    std::thread::scope(|scope| {
        let load = Load(&over);
        for number in 0..6 {
            let (served, over) = (served.clone(), &over);
            scope.spawn(move || match number % 2 {
                0 => keep_alive(http, over, &served),
                _ => one_by_one(http, over, &served),
            });
        }
        for _ in 0..20 {
            answers.recv_timeout(PATIENCE).expect("an answer");
        }
        let outcome = task();
        // Those that follow count, too.
        for _ in 0..20 {
            answers.recv_timeout(PATIENCE).expect("an answer");
        }
        drop(load);
        outcome
    })
}

/// The whole family of a weir.
fn family(weir: u32) -> Vec<u32> {
    let launcher = launcher(weir);
    let mut family = children(launcher);
    family.extend([weir, launcher]);
    family
}

#[test]
fn no_request_fails_and_nothing_of_the_earlier_weir_is_left() {
    let directory = tempfile::tempdir().expect("make a directory");
    let socket = directory.path().join("s");
    let config = one_pool("hello", "", "min = 1\nmax = 4")
        + &format!("[[listener]]\naddress = \"unix:{}\"\n", socket.display());
    let mut weir = Weir::start(&config);
    weir.logged("vm ready");
    let earlier = weir.pid();
    let processes = family(earlier);
    let heir = under_load(&weir, || {
        let heir = upgraded(&weir, earlier);
        weir.logged("stopped");
        heir
    });
    assert!(weir.wait_in_silence().success());
    all_gone(&processes);
    assert_eq!(groups(earlier), Vec::<PathBuf>::new(), "control groups are left");
    let curl = ["--unix-socket", &socket.display().to_string(), "/"];
    assert_eq!(weir.curl(&curl).status, 200, "its file is there");
    assert_eq!(weir.admin("/readyz").0, 200);

    // The third generation, which ends as any weir does.
    let later = upgraded(&weir, heir.0);
    weir.logged("stopped");
    all_gone(&[heir.0]);
    assert_eq!(get(weir.http, "/").status, 200);
    let processes = family(later.0);
    kill("TERM", later.0);
    all_gone(&processes);
    assert!(!socket.exists());
    assert_eq!(weir.files(), ["weir.toml"]);
    assert_eq!([earlier, heir.0, later.0].map(|pid| groups(pid).len()), [0; 3]);
}

/// A binary of its own, which can be replaced.
struct Binary {
    directory: tempfile::TempDir,
}

impl Binary {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("make a directory");
        let binary = Self { directory };
        std::fs::copy(env!("CARGO_BIN_EXE_weir"), binary.path()).expect("copy the binary");
        binary
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("weir")
    }

    /// Puts `text` in its place, all at once.
    fn replace(&self, text: &str) {
        let beside = self.directory.path().join("new");
        std::fs::write(&beside, text).expect("write a binary");
        std::fs::set_permissions(&beside, Permissions::from_mode(0o755)).expect("make it executable");
        std::fs::rename(beside, self.path()).expect("replace the binary");
    }
}

fn not_upgraded(weir: &Weir) -> String {
    let line = weir.logged("not upgraded, this weir goes on");
    line["fields"]["error"].as_str().expect("a text").to_owned()
}

#[test]
fn a_binary_that_does_not_work_changes_nothing() {
    let config = one_pool("hello", "", "min = 0\nmax = 1\nidle_timeout = \"60s\"")
        + "[host]\nupgrade_timeout = \"500ms\"\n";
    let binary = Binary::new();
    let weir = Weir::start_by(&[], &binary.path(), &config);
    let mut client = Client::connect(weir.http);
    client.body("/");
    let launcher = launcher(weir.pid());
    for (text, why) in [
        ("no program", "start "),
        ("#!/bin/sh\nexit 3\n", "(exit status: 3)"),
        // It hears of the sockets, and ends.
        ("#!/bin/sh\nhead -c 1 >/dev/null\nkill -KILL $$\n", "(signal: 9"),
        ("#!/bin/sh\nexec sleep 60\n", "was not ready within 500ms and was killed"),
    ] {
        binary.replace(text);
        weir.signal("QUIT");
        let error = not_upgraded(&weir);
        assert!(error.contains(why), "{text:?}: {error}");
        assert_eq!(children(weir.pid()), [launcher], "nothing of it is left");
        // Connections that were open are as they were.
        client.body("/");
        assert_eq!(get(weir.http, "/").status, 200);
        assert_eq!(weir.admin("/readyz").0, 200);
    }
}

#[test]
fn a_broken_configuration_changes_nothing() {
    let config = one_pool("hello", "", "min = 0\nmax = 1");
    let weir = Weir::start(&config);
    weir.configure(&config.replace("[pool.p]", "[pool.p]\nno_such_key = 1"));
    let (code, _, errors) = run(weir.admin, &["upgrade"]);
    assert_eq!(code, Some(1));
    assert!(errors.contains("the new weir does not take over (exit status: 2)"), "{errors}");
    // Not to be taken for the one that follows.
    weir.logged("started a new weir");
    assert_eq!(get(weir.http, "/").status, 200);
    weir.configure(&config);
    let (code, out, errors) = run(weir.admin, &["upgrade"]);
    let _heir = heir(&weir);
    assert_eq!((code, out.as_str()), (Some(0), "upgraded: another weir serves\n"), "{errors}");
    assert_eq!(get(weir.http, "/").status, 200);
}

#[test]
fn there_is_one_upgrade_at_a_time_and_it_ends_with_weir() {
    let config = one_pool("hello", "", "min = 0\nmax = 1") + "[host]\nupgrade_timeout = \"1h\"\n";
    let binary = Binary::new();
    let mut weir = Weir::start_by(&[], &binary.path(), &config);
    binary.replace("#!/bin/sh\nexec sleep 60\n");
    weir.signal("QUIT");
    let hanging = heir(&weir);
    weir.signal("QUIT");
    weir.logged("SIGQUIT ignored: an upgrade is under way");
    for what in ["upgrade", "reload"] {
        let (code, _, errors) = run(weir.admin, &[what]);
        assert!(code == Some(1) && errors.contains("an upgrade is under way"), "{errors}");
    }
    weir.signal("TERM");
    assert!(weir.wait().success());
    all_gone(&[hanging.0]);
}

#[test]
fn a_reload_is_answered_with_what_has_changed_or_what_is_wrong() {
    let config = one_pool("hello", "", "min = 0\nmax = 1");
    let weir = Weir::start(&config);
    let (code, out, errors) = run(weir.admin, &["reload"]);
    assert_eq!((code, out.as_str()), (Some(0), "reloaded: nothing changed\n"), "{errors}");
    weir.configure(&config.replace("max = 1", "max = 2"));
    let (code, out, errors) = run(weir.admin, &["reload"]);
    assert_eq!((code, out.as_str()), (Some(0), "reloaded: 1 pools changed, 1 routes read\n"), "{errors}");
    weir.configure("[[listener]]\nadress = \"127.0.0.1:0\"\n[host]\nmax_vms = 0\n");
    let (code, out, errors) = run(weir.admin, &["reload"]);
    assert_eq!((code, out.as_str()), (Some(1), ""));
    let lines: Vec<_> = errors.lines().collect();
    assert!(lines.len() >= 2 && errors.contains("adress: unknown key"), "one a line: {errors}");
    assert!(errors.contains("host.max_vms: must be from 1"), "{errors}");
    assert_eq!(get(weir.http, "/").status, 200);
}
