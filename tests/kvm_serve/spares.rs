//! Children that are ready before there is a VM for them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;

use crate::support::{Weir, children, get, launcher_and_vms, one_pool};

/// What the kernel says of the layers of a process's jail, its user aside, which is its own.
fn jail(pid: u32) -> BTreeMap<String, String> {
    const FACTS: [&str; 8] =
        ["Seccomp", "Seccomp_filters", "NoNewPrivs", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"];
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let lines = status.lines().filter_map(|line| line.split_once(":\t"));
    let mut jail: BTreeMap<String, String> = lines
        .filter(|(name, _)| FACTS.contains(name))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let root = fs::read_dir(format!("/proc/{pid}/root")).map(|entries| entries.count().to_string());
    jail.insert("files".to_owned(), root.unwrap_or_default());
    for name in ["mnt", "ipc", "uts", "net", "pid"] {
        let own = fs::read_link("/proc/self/ns/".to_owned() + name).unwrap_or_default();
        let link = fs::read_link(format!("/proc/{pid}/ns/{name}")).unwrap_or_default();
        jail.insert(name.to_owned(), if link == own { "the host's" } else { "another" }.to_owned());
    }
    jail
}

fn user(pid: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:\t"))?;
    line.split('\t').next()?.parse().ok()
}

#[test]
fn a_spare_is_as_confined_as_a_vm_before_it_is_anything() {
    assert_eq!(
        fs::metadata("/proc/self").map(|own| own.uid()).unwrap_or(1),
        0,
        "looks at other users' processes: needs root"
    );
    let weir = Weir::start(&one_pool("hello", "", "min = 1\nmax = 1"));
    assert_eq!(get(weir.http, "/").status, 200);
    weir.until_templates(1);
    let (launcher, vms) = launcher_and_vms(weir.pid());
    let [vm] = vms[..] else { panic!("one vm: {vms:?}") };
    let expected = jail(vm);
    assert_eq!((expected["Seccomp"].as_str(), expected["NoNewPrivs"].as_str()), ("2", "1"));
    assert_eq!(
        (expected["CapEff"].as_str(), expected["CapBnd"].as_str()),
        ("0000000000000000", "0000000000000000")
    );
    assert_eq!(expected["files"], "0", "its root is empty");
    // A child needs a moment for its jail, and until it has it nobody gives it an order.
    let spares = || children(launcher).into_iter().filter(|child| *child != vm).collect::<Vec<_>>();
    weir.until("spares, jailed", || {
        let spares = spares();
        spares.len() >= 2 && spares.iter().all(|spare| jail(*spare) == expected)
    });
    let users: Vec<_> = spares().into_iter().chain([vm]).map(user).collect();
    assert!(users.iter().all(|user| user.is_some_and(|id| id >= 0x7000_0000)), "{users:?}");
    let different: BTreeSet<_> = users.iter().collect();
    assert_eq!(different.len(), users.len(), "each has a user of its own: {users:?}");
}
