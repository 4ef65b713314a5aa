//! However weir ends, nothing of it stays.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::support::{PATIENCE, Weir, children, get, launcher, launcher_and_vms, one_pool};

/// Names of this namespace's network interfaces.
fn interfaces() -> BTreeSet<String> {
    let entries = std::fs::read_dir("/sys/class/net").expect("list interfaces").flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// Waits, bounded, until none of these processes is left: they end by signals that the kernel sends.
pub(crate) fn all_gone(pids: &[u32]) {
    let deadline = Instant::now() + PATIENCE;
    let left = || pids.iter().filter(|pid| Path::new(&format!("/proc/{pid}/exe")).exists()).count();
    while left() > 0 {
        assert!(Instant::now() < deadline, "{} of {pids:?} are left", left());
        std::thread::yield_now();
    }
}

#[test]
fn sigterm_finishes_requests_in_flight_and_then_stops_vms() {
    let mut weir = Weir::start(&one_pool("hello", "", "min = 1\nmax = 1\nidle_timeout = \"60s\""));
    weir.logged("vm ready");
    let (pid, launcher) = (weir.pid(), launcher(weir.pid()));
    let mut processes = children(launcher);
    processes.push(launcher);
    let address = weir.http;
    let client = std::thread::spawn(move || get(address, "/sleep?ms=400"));
    weir.until_in_flight();
    weir.signal("TERM");
    let answer = client.join().expect("the client does not panic");
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(weir.wait().success());
    assert_eq!(groups(pid), Vec::<PathBuf>::new(), "control groups are left");
    all_gone(&processes);
}

#[test]
fn sigkill_of_weir_leaves_no_process_and_no_tap() {
    let before = interfaces();
    let mut weir = Weir::start(&one_pool("hello", "", "min = 3\nmax = 3\nidle_timeout = \"60s\""));
    for _ in 0..3 {
        weir.logged("vm ready");
    }
    let (launcher, vms) = launcher_and_vms(weir.pid());
    assert!(vms.len() >= 3, "the template, or its canary, may be there as well: {vms:?}");
    let mut processes = children(launcher);
    processes.push(launcher);
    let namespace =
        std::fs::read_link(format!("/proc/{}/ns/net", weir.pid())).expect("read weir's namespace");
    assert_ne!(
        namespace,
        std::fs::read_link("/proc/self/ns/net").expect("read our own"),
        "TAPs live elsewhere"
    );
    weir.signal("KILL");
    weir.wait();
    all_gone(&processes);
    assert!(interfaces().is_subset(&before), "no TAP appears in the host's namespace");
    assert_eq!(weir.files(), ["weir.toml"], "no file is left where weir ran");
}

/// Directories of weir `pid` in all hierarchies of control groups.
pub(crate) fn groups(pid: u32) -> Vec<PathBuf> {
    let name = format!("weir-{pid}");
    let mut places = vec![PathBuf::from("/sys/fs/cgroup")];
    let mut found = Vec::new();
    while let Some(place) = places.pop() {
        for entry in std::fs::read_dir(place).into_iter().flatten().flatten() {
            let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
            if is_directory && entry.file_name() == *name {
                found.push(entry.path());
            } else if is_directory {
                places.push(entry.path());
            }
        }
    }
    found
}
