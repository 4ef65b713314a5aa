//! Each layer alone: seccomp is off, so that what is refused here is refused by something else.

use weir_vmm::VmEvent;
use weir_vmm::jail::identity::IDS;

use crate::harness::{Launcher, Privilege, Variant, launcher, receive};
use crate::tests;

fn unfiltered(privilege: Privilege) -> Launcher {
    launcher(privilege, Variant { unfiltered: true, ..Variant::default() })
}

fn the_file_system_is_empty_and_read_only(privilege: Privilege) {
    let report = unfiltered(privilege).report(&["files"]);
    let chmod = match privilege {
        // Not even the owner: this user owns nothing.
        Privilege::Root => "PermissionDenied",
        Privilege::UserNamespace => "ReadOnlyFilesystem",
    };
    let expected = [
        "/ has 0 entries",
        ".. has 0 entries",
        "read /etc/passwd: NotFound",
        "read /proc/self/status: NotFound",
        "open /dev/kvm: NotFound",
        "write /file: ReadOnlyFilesystem",
        "make /directory: ReadOnlyFilesystem",
    ];
    let expected = format!("{}\nchmod /: {chmod}", expected.join("\n"));
    assert_eq!(report.replace("chmod /: ReadOnlyFilesystem", &format!("chmod /: {chmod}")), expected);
}

fn exactly_the_needed_descriptors_are_open(privilege: Privilege) {
    let mut launcher = unfiltered(privilege);
    // Others in the launcher at the same time must not show.
    let _others: Vec<_> = (0..3).map(|_| launcher.start(&["wait"])).collect();
    let report = launcher.report(&["descriptors"]);
    let open: Vec<u32> = report.split(' ').map(|fd| fd.parse().unwrap()).collect();
    assert_eq!(open[..3], [0, 1, 2]);
    // KVM, control socket, and the copy of it for the last word.
    assert_eq!(open.len(), 3 + 3, "{report}");
}

fn all_five_capability_sets_are_empty(privilege: Privilege) {
    assert_eq!(unfiltered(privilege).report(&["capabilities"]), "0 0 0 0 0 0xef");
}

fn every_vm_has_a_user_of_its_own_where_there_are_users(privilege: Privilege) {
    let mut launcher = unfiltered(privilege);
    // The first one still lives, so the second one cannot have its user.
    let vm = launcher.start(&["identity-then-wait"]);
    let (VmEvent::Log(first), _) = receive(&vm.control).unwrap() else { panic!("no report") };
    let second = launcher.report(&["identity"]);
    match privilege {
        Privilege::Root => {
            assert_ne!(first, second);
            for report in [first, second] {
                let (user, rest) = report.split_once(' ').unwrap();
                assert!(IDS.contains(&user.parse().unwrap()), "{report}");
                assert_eq!(rest, format!("{user} []"));
            }
        }
        Privilege::UserNamespace => assert!(second.starts_with("0 0 ["), "{second}"),
    }
}

fn nobody_becomes_root_again(privilege: Privilege) {
    let mut launcher = unfiltered(privilege);
    let identities = match privilege {
        Privilege::Root => ["0", "0", "0"],
        // It is user 0 in name; no other can be had.
        Privilege::UserNamespace => ["1", "1", "1"],
    };
    for call in [libc::SYS_setresuid, libc::SYS_setresgid] {
        let call = call.to_string();
        let args = [&["call", call.as_str()], identities.as_slice()].concat();
        let report = launcher.report(&args);
        assert!(report.starts_with("EPERM") || report.starts_with("EINVAL"), "{report}");
    }
}

fn resources_are_limited(privilege: Privilege) {
    assert_eq!(unfiltered(privilege).report(&["limits"]), "32 0 0 0 3556769792");
}

fn no_other_process_is_seen_or_traced(privilege: Privilege) {
    let mut launcher = unfiltered(privilege);
    let _other = launcher.start(&["wait"]);
    assert_eq!(
        launcher.report(&["processes"]),
        "pid 1 parent None session 1 kill(-1) nobody visible 0 ptrace nobody"
    );
}

fn a_fork_bomb_is_small(privilege: Privilege) {
    let mut launcher = unfiltered(privilege);
    let made: u32 = launcher.report(&["fork-bomb"]).parse().unwrap();
    match privilege {
        Privilege::Root => assert!(made < 16, "{made} processes"),
        // All VMs and weir are one user here: only seccomp forbids it.
        Privilege::UserNamespace => assert_eq!(made, 20),
    }
}

fn nothing_can_be_executed(privilege: Privilege) {
    assert_eq!(unfiltered(privilege).report(&["exec"]), "NotFound");
}

fn the_network_is_empty(privilege: Privilege) {
    assert_eq!(unfiltered(privilege).report(&["network"]), "NetworkUnreachable 1");
}

fn privileges_are_lost_for_good_and_memory_is_not_dumpable(privilege: Privilege) {
    assert_eq!(unfiltered(privilege).report(&["flags"]), "ok 1, ok 0, ok 0");
}

tests![
    the_file_system_is_empty_and_read_only,
    exactly_the_needed_descriptors_are_open,
    all_five_capability_sets_are_empty,
    every_vm_has_a_user_of_its_own_where_there_are_users,
    nobody_becomes_root_again,
    resources_are_limited,
    no_other_process_is_seen_or_traced,
    a_fork_bomb_is_small,
    nothing_can_be_executed,
    the_network_is_empty,
    privileges_are_lost_for_good_and_memory_is_not_dumpable,
];
