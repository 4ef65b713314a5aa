//! The whole jail: every forbidden call ends the process.

use libc::c_long;
use weir_vmm::ExitReason;

use crate::harness::{Privilege, Variant, launcher};
use crate::tests;

/// What a broken-out guest would like to do. Null pointers, so that none does harm where it is not forbidden.
const FORBIDDEN: &[(&str, c_long, &[&str])] = &[
    ("open", libc::SYS_open, &[]),
    ("openat", libc::SYS_openat, &[]),
    ("openat2", libc::SYS_openat2, &[]),
    ("socket", libc::SYS_socket, &["2", "1", "0"]),
    ("socketpair", libc::SYS_socketpair, &[]),
    ("connect", libc::SYS_connect, &[]),
    ("ptrace", libc::SYS_ptrace, &["16", "1"]),
    ("process_vm_readv", libc::SYS_process_vm_readv, &["1"]),
    ("execve", libc::SYS_execve, &[]),
    ("execveat", libc::SYS_execveat, &[]),
    ("fork", libc::SYS_fork, &[]),
    ("vfork", libc::SYS_vfork, &[]),
    ("clone", libc::SYS_clone, &[]),
    ("clone3", libc::SYS_clone3, &[]),
    ("kill", libc::SYS_kill, &["1", "0"]),
    ("tgkill with another signal than SIGABRT", libc::SYS_tgkill, &["1", "1", "0"]),
    ("mount", libc::SYS_mount, &[]),
    ("chroot", libc::SYS_chroot, &[]),
    ("pivot_root", libc::SYS_pivot_root, &[]),
    ("unshare a user namespace", libc::SYS_unshare, &["268435456"]),
    ("setns", libc::SYS_setns, &[]),
    ("setuid", libc::SYS_setuid, &["0"]),
    ("capset", libc::SYS_capset, &[]),
    ("prctl", libc::SYS_prctl, &["3"]),
    ("bpf", libc::SYS_bpf, &[]),
    ("perf_event_open", libc::SYS_perf_event_open, &[]),
    ("io_uring_setup", libc::SYS_io_uring_setup, &[]),
    ("userfaultfd", libc::SYS_userfaultfd, &[]),
    ("keyctl", libc::SYS_keyctl, &[]),
    ("memfd_create", libc::SYS_memfd_create, &[]),
    ("futex", libc::SYS_futex, &[]),
    ("seccomp", libc::SYS_seccomp, &["9"]),
    ("add a capability to the ambient set", libc::SYS_prctl, &["47", "2", "1"]),
    ("reboot", libc::SYS_reboot, &[]),
    ("shmget", libc::SYS_shmget, &[]),
    ("mmap of executable memory", libc::SYS_mmap, &["0", "4096", "7", "34", "0"]),
    ("mprotect to executable", libc::SYS_mprotect, &["0", "0", "4"]),
    ("pkey_mprotect", libc::SYS_pkey_mprotect, &[]),
    ("an ioctl of another device (TIOCSTI)", libc::SYS_ioctl, &["0", "21522"]),
    ("an ioctl of KVM that no VM needs (KVM_CREATE_DEVICE)", libc::SYS_ioctl, &["0", "3222056672"]),
    ("make a TAP persistent (TUNSETPERSIST)", libc::SYS_ioctl, &["0", "1074025675", "1"]),
    ("offloads that no guest is offered (TUN_F_USO4)", libc::SYS_ioctl, &["0", "1074025680", "33"]),
    ("an fcntl that is not for sockets (F_SETLEASE)", libc::SYS_fcntl, &["0", "1024", "0"]),
    ("make a shared open file blocking (F_SETFL)", libc::SYS_fcntl, &["0", "4", "2"]),
    ("limit another process (RLIMIT_AS)", libc::SYS_prlimit64, &["1", "9", "0", "0"]),
    ("another limit of its own (RLIMIT_NOFILE)", libc::SYS_prlimit64, &["0", "7", "0", "0"]),
    ("getppid by the x32 numbers", 0x4000_0000 + libc::SYS_getppid, &[]),
    ("getpid by the x32 numbers", 0x4000_0000 + libc::SYS_getpid, &[]),
];

fn every_forbidden_call_ends_the_process(privilege: Privilege) {
    let mut launcher = launcher(privilege, Variant::default());
    for (what, number, arguments) in FORBIDDEN {
        let number = number.to_string();
        let args = [&["call", number.as_str()], *arguments].concat();
        let outcome = launcher.probe(&args);
        assert_eq!(outcome.status, "signal 31 (SIGSYS): forbidden system call", "{what}: {outcome:?}");
        assert_eq!((outcome.report.as_str(), &outcome.last_word), ("", &None), "{what}");
    }
}

fn the_32_bit_entry_is_closed(privilege: Privilege) {
    let outcome = launcher(privilege, Variant::default()).probe(&["getpid-32-bit"]);
    // SIGSYS, or SIGSEGV on a kernel that has no such entry.
    assert!(outcome.status.starts_with("signal ") && outcome.last_word.is_none(), "{outcome:?}");
}

fn what_a_vm_needs_is_allowed(privilege: Privilege) {
    let mut launcher = launcher(privilege, Variant::default());
    assert_eq!(launcher.report(&["allowed"]), format!("{} true", 8 << 20));
    let same_with_plain_memory = ["call", &libc::SYS_mmap.to_string(), "0", "4096", "3", "34", "0"];
    assert!(launcher.report(&same_with_plain_memory).starts_with("ok "));
    let offloads = ["call", &libc::SYS_ioctl.to_string(), "0", "1074025680", "3"];
    assert!(!launcher.report(&offloads).is_empty(), "TUNSETOFFLOAD");
    let non_blocking = (libc::O_RDWR | libc::O_NONBLOCK).to_string();
    let set_flags = ["call", &libc::SYS_fcntl.to_string(), "0", "4", &non_blocking];
    assert_eq!(launcher.report(&set_flags), "ok 0");
}

fn a_panic_is_the_last_word_and_ends_the_process(privilege: Privilege) {
    let mut launcher = launcher(privilege, Variant::default());
    for probe in ["panic", "panic-long"] {
        let outcome = launcher.probe(&[probe]);
        assert_eq!(outcome.status, "exit code 101", "{outcome:?}");
        match outcome.last_word {
            Some(ExitReason::Host(text)) => {
                assert!(text.contains("panicked at") && text.len() <= 1024, "{text}")
            }
            other => panic!("{other:?}"),
        }
    }
}

fn a_stack_overflow_ends_the_process_only(privilege: Privilege) {
    let mut launcher = launcher(privilege, Variant::default());
    let outcome = launcher.probe(&["overflow-stack"]);
    assert!(outcome.status.starts_with("signal ") && outcome.last_word.is_none(), "{outcome:?}");
    assert_eq!(launcher.report(&["nothing"]), "");
}

tests![
    every_forbidden_call_ends_the_process,
    the_32_bit_entry_is_closed,
    what_a_vm_needs_is_allowed,
    a_panic_is_the_last_word_and_ends_the_process,
    a_stack_overflow_ends_the_process_only,
];
