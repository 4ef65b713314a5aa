use std::fs;
use std::io;
use std::path::Path;

use super::{network_namespace_settings, tun_fix, user_namespace_settings};

/// A /proc with these files.
fn proc(files: &[(&str, &str)]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    for (name, text) in files {
        let path = directory.path().join(name);
        fs::create_dir_all(path.parent().expect("below the directory")).expect("directories");
        fs::write(path, text).expect("a file");
    }
    directory
}

const USER: (&str, &str) = ("self/ns/user", "");
const NET: (&str, &str) = ("self/ns/net", "");

#[test]
fn user_namespaces_are_there_unless_a_setting_forbids_them() {
    let allowed = [
        ("sys/user/max_user_namespaces", "96365\n"),
        ("sys/kernel/unprivileged_userns_clone", "1\n"),
        ("sys/kernel/apparmor_restrict_unprivileged_userns", "0\n"),
        USER,
    ];
    assert_eq!(user_namespace_settings(proc(&allowed).path()), Ok(()));
    assert_eq!(user_namespace_settings(proc(&[USER]).path()), Ok(()));
    for (setting, value) in [
        ("user/max_user_namespaces", "0\n"),
        ("kernel/unprivileged_userns_clone", "0\n"),
        ("kernel/apparmor_restrict_unprivileged_userns", "1\n"),
    ] {
        let file = format!("sys/{setting}");
        let finding = user_namespace_settings(proc(&[USER, (&file, value)]).path()).expect_err(setting);
        let name = setting.replace('/', ".");
        assert!(finding.problem.contains(&name), "{finding}");
        assert!(finding.fix.contains(&format!("sysctl -w {name}=")), "{finding}");
    }
}

#[test]
fn kernels_without_namespaces_are_named() {
    let empty = proc(&[]);
    assert!(user_namespace_settings(empty.path()).expect_err("none").problem.contains("no user namespaces"));
    assert!(
        network_namespace_settings(empty.path()).expect_err("none").problem.contains("no network namespaces")
    );
}

#[test]
fn network_namespaces_need_a_limit_above_zero() {
    assert_eq!(network_namespace_settings(proc(&[NET]).path()), Ok(()));
    assert_eq!(
        network_namespace_settings(proc(&[NET, ("sys/user/max_net_namespaces", "1\n")]).path()),
        Ok(())
    );
    let none = proc(&[NET, ("sys/user/max_net_namespaces", "0\n")]);
    assert!(network_namespace_settings(none.path()).expect_err("none").fix.contains("max_net_namespaces"));
}

#[test]
fn network_check_leaves_this_process_in_its_namespace() {
    let inode = || fs::read_link("/proc/self/ns/net").expect("a namespace");
    let before = inode();
    // The verdict depends on the machine; that nothing changes must not.
    let _ = super::network_namespaces();
    assert_eq!(inode(), before);
    assert!(Path::new("/proc/self/ns/net").exists());
}

#[test]
fn each_way_to_fail_has_its_own_advice() {
    let fix = |code| tun_fix(&io::Error::from_raw_os_error(code));
    assert!(fix(libc::ENOENT).contains("modprobe tun"));
    assert!(fix(libc::EACCES).contains("chmod"));
    assert_eq!(fix(libc::EACCES), fix(libc::EPERM));
    assert!(fix(libc::EMFILE).contains("ulimit"));
    assert!(fix(libc::EIO).contains("dmesg"));
}
