//! What the jail needs from the host.

use std::fs;
use std::path::Path;

use crate::doctor::{Finding, State};

/// Looks for namespaces, seccomp and cgroups. Reads only /proc and /sys.
pub fn doctor() -> Vec<Finding> {
    let root = Path::new("/");
    let mut findings =
        vec![namespaces(root), user_namespaces(root, rustix::process::geteuid().is_root()), seccomp(root)];
    findings.extend(crate::cgroup::doctor());
    findings
}

fn finding(name: &'static str, detail: String, fix: &str) -> Finding {
    let state = if fix.is_empty() { State::Good } else { State::Broken };
    Finding { name, state, detail, fix: fix.to_owned() }
}

fn namespaces(root: &Path) -> Finding {
    let kinds = ["mnt", "pid", "ipc", "uts", "net"];
    let missing: Vec<&str> =
        kinds.into_iter().filter(|kind| !root.join("proc/self/ns").join(kind).exists()).collect();
    if missing.is_empty() {
        return finding("namespaces", kinds.join(", "), "");
    }
    let fix =
        "mount /proc, or use a kernel with CONFIG_NAMESPACES and all of PID_NS, IPC_NS, UTS_NS and NET_NS";
    finding("namespaces", format!("missing: {}", missing.join(", ")), fix)
}

/// Only a weir that is not root needs them.
fn user_namespaces(root: &Path, privileged: bool) -> Finding {
    const NAME: &str = "user namespaces";
    if privileged {
        return finding(NAME, "not needed as root".into(), "");
    }
    let setting = |path: &str| fs::read_to_string(root.join(path)).ok().map(|text| text.trim().to_owned());
    if !root.join("proc/self/ns/user").exists() {
        return finding(
            NAME,
            "not in this kernel".into(),
            "use a kernel with CONFIG_USER_NS, or run weir as root",
        );
    }
    if setting("proc/sys/user/max_user_namespaces").as_deref() == Some("0") {
        return finding(
            NAME,
            "none allowed".into(),
            "sysctl -w user.max_user_namespaces=10000, or run weir as root",
        );
    }
    if setting("proc/sys/kernel/unprivileged_userns_clone").as_deref() == Some("0") {
        let fix = "sysctl -w kernel.unprivileged_userns_clone=1, or run weir as root";
        return finding(NAME, "only for root".into(), fix);
    }
    if setting("proc/sys/kernel/apparmor_restrict_unprivileged_userns").as_deref() == Some("1") {
        let fix = "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, or give weir an AppArmor profile with userns";
        return finding(NAME, "restricted by AppArmor".into(), fix);
    }
    finding(NAME, "available".into(), "")
}

fn seccomp(root: &Path) -> Finding {
    let actions = fs::read_to_string(root.join("proc/sys/kernel/seccomp/actions_avail")).unwrap_or_default();
    if actions.split_whitespace().any(|action| action == "kill_process") {
        return finding("seccomp", "filters with kill_process".into(), "");
    }
    finding(
        "seccomp",
        "no filters that kill".into(),
        "use a kernel (4.14 or later) with CONFIG_SECCOMP_FILTER",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A host with these files (contents, path).
    fn host(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    #[test]
    fn an_empty_host_lacks_everything_and_every_lack_has_a_fix() {
        let root = host(&[]);
        let root = root.path();
        for found in [namespaces(root), user_namespaces(root, false), seccomp(root)] {
            assert!(
                found.state != State::Good && !found.fix.is_empty() && !found.detail.is_empty(),
                "{found:?}"
            );
        }
    }

    #[test]
    fn a_missing_namespace_is_named() {
        let kinds = ["mnt", "ipc", "uts", "net"].map(|kind| format!("proc/self/ns/{kind}"));
        let files: Vec<(&str, &str)> = kinds.iter().map(|path| (path.as_str(), "")).collect();
        assert_eq!(namespaces(host(&files).path()).detail, "missing: pid");
    }

    #[test]
    fn each_switch_that_forbids_user_namespaces_is_found() {
        let there = ("proc/self/ns/user", "");
        for (switch, value) in [
            ("proc/sys/user/max_user_namespaces", "0\n"),
            ("proc/sys/kernel/unprivileged_userns_clone", "0\n"),
            ("proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1\n"),
        ] {
            let root = host(&[there, (switch, value)]);
            let found = user_namespaces(root.path(), false);
            let name = Path::new(switch).file_name().unwrap().to_str().unwrap();
            assert!(found.state == State::Broken && found.fix.contains(name), "{found:?}");
            assert_eq!(user_namespaces(root.path(), true).state, State::Good);
        }
        assert_eq!(user_namespaces(host(&[there]).path(), false).state, State::Good);
    }

    #[test]
    fn seccomp_without_kill_process_is_not_enough() {
        let path = "proc/sys/kernel/seccomp/actions_avail";
        assert_eq!(seccomp(host(&[(path, "kill_thread trap errno allow\n")]).path()).state, State::Broken);
        assert_eq!(seccomp(host(&[(path, "kill_process kill_thread allow\n")]).path()).state, State::Good);
    }
}
