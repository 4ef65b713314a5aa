//! What a launcher answers to requests that it cannot serve.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::AsFd;

use rustix::net::{SendFlags, send};
use weir_vmm::VmEvent;
use weir_vmm::channel;
use weir_vmm::launcher::protocol::{ChildId, LauncherReply};

use crate::harness::{Launcher, Privilege, Variant, launcher, null, readable, receive};
use crate::tests;

fn failure(launcher: &Launcher, id: u64) -> String {
    match launcher.reply() {
        Some((LauncherReply::Failed { child, error }, files)) if child == ChildId(id) => {
            assert!(files.is_empty());
            error
        }
        other => panic!("{other:?}"),
    }
}

fn without_kvm_every_fork_says_why(privilege: Privilege) {
    let launcher = launcher(privilege, Variant { no_kvm: true, ..Variant::default() });
    for id in [7, 8] {
        launcher.request(id, &[null().as_fd()]);
        assert_eq!(failure(&launcher, id), "no kvm here");
    }
}

fn a_failed_fork_is_an_answer(privilege: Privilege) {
    // Root is exempt from the limit that makes it fail here.
    let launcher = launcher(Privilege::UserNamespace, Variant { no_processes: true, ..Variant::default() });
    let _ = privilege;
    for id in [1, 2] {
        launcher.request(id, &[null().as_fd()]);
        let error = failure(&launcher, id);
        assert!(error.starts_with("fork vm process: Resource temporarily unavailable"), "{error}");
    }
}

fn a_wrong_number_of_descriptors_is_refused(privilege: Privilege) {
    let mut launcher = launcher(privilege, Variant::default());
    let file = null();
    for count in [0, 2, 8] {
        launcher.request(100, &vec![file.as_fd(); count]);
        assert_eq!(failure(&launcher, 100), format!("{count} file descriptors instead of 1"));
    }
    assert_eq!(launcher.report(&["nothing"]), "");
}

fn a_living_child_is_not_forked_twice(privilege: Privilege) {
    let mut launcher = launcher(privilege, Variant::default());
    let vm = launcher.start(&["wait"]);
    launcher.request(vm.id.0, &[null().as_fd()]);
    assert_eq!(failure(&launcher, vm.id.0), format!("child {} is already running", vm.id));
}

fn a_malformed_request_does_not_end_the_launcher(privilege: Privilege) {
    let mut launcher = launcher(privilege, Variant::default());
    let too_long = vec![0; channel::MESSAGE_MAX + 1];
    for bytes in [&[0xff_u8; 40][..], &[0], &too_long, b"GET / HTTP/1.1\r\n\r\n"] {
        send(&launcher.handle.socket, bytes, SendFlags::NOSIGNAL).unwrap();
    }
    assert_eq!(launcher.report(&["nothing"]), "");
}

fn a_launcher_with_threads_refuses_to_serve(privilege: Privilege) {
    let launcher = launcher(privilege, Variant { threaded: true, ..Variant::default() });
    assert!(launcher.reply().is_none());
    assert!(readable(&launcher.handle.pidfd));
}

fn a_missing_program_is_an_error_at_once(_: Privilege) {
    let error = weir_vmm::launcher::spawn(std::path::Path::new("/nonexistent/weir")).unwrap_err();
    assert_eq!(error.to_string(), "run the launcher");
}

fn no_tenant_reaches_the_launchers_memory(privilege: Privilege) {
    let mut launcher = launcher(privilege, Variant::default());
    // Not a literal: that would be in the launcher's program, which is this one.
    let secret = ["a", "tenants", "secret", "4711"].join("-");
    let vm = launcher.start(&["remember", &secret]);
    assert_eq!(receive::<VmEvent>(&vm.control).unwrap().0, VmEvent::Ready);
    assert_eq!(occurrences(launcher.handle.pid, secret.as_bytes()), 0);
    // The search does find what is there: the child has its order.
    assert_ne!(occurrences(vm.pid, secret.as_bytes()), 0);
    // And no later child has it.
    let next = launcher.start(&["wait"]);
    assert_eq!(receive::<VmEvent>(&next.control).unwrap().0, VmEvent::Ready);
    assert_eq!(occurrences(next.pid, secret.as_bytes()), 0);
}

/// How often `needle` stands in the writable memory of process `pid`.
fn occurrences(pid: i32, needle: &[u8]) -> usize {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let mut memory = File::open(format!("/proc/{pid}/mem")).unwrap();
    let mut found = 0;
    for line in maps.lines().filter(|line| !line.contains("[v")) {
        let (start, rest) = line.split_once('-').unwrap();
        let (end, _) = rest.split_once(' ').unwrap();
        let [start, end] = [start, end].map(|text| u64::from_str_radix(text, 16).unwrap());
        let mut bytes = vec![0; usize::try_from(end - start).unwrap()];
        memory.seek(SeekFrom::Start(start)).unwrap();
        if memory.read_exact(&mut bytes).is_ok() {
            found += bytes.windows(needle.len()).filter(|window| *window == needle).count();
        }
    }
    found
}

tests![
    without_kvm_every_fork_says_why,
    a_failed_fork_is_an_answer,
    a_wrong_number_of_descriptors_is_refused,
    a_living_child_is_not_forked_twice,
    a_malformed_request_does_not_end_the_launcher,
    a_launcher_with_threads_refuses_to_serve,
    a_missing_program_is_an_error_at_once;
    no_tenant_reaches_the_launchers_memory,
];
