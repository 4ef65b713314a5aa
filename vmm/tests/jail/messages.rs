//! What a launcher answers to requests that it cannot serve.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::net::Ipv4Addr;
use std::os::fd::AsFd;

use rustix::net::{SendFlags, send};
use weir_vmm::channel;
use weir_vmm::launcher::protocol::LauncherReply;
use weir_vmm::{NetSpec, VmId};

use crate::harness::{Launcher, Privilege, Variant, image, launcher, readable, spec};
use crate::tests;

fn failure(launcher: &Launcher, id: u64) -> String {
    match launcher.reply() {
        Some((LauncherReply::Failed { id: failed, error }, files)) if failed == VmId(id) => {
            assert!(files.is_empty());
            error
        }
        other => panic!("{other:?}"),
    }
}

fn without_kvm_every_start_says_why(privilege: Privilege) {
    let launcher = launcher(privilege, Variant { no_kvm: true, ..Variant::default() });
    for id in [7, 8] {
        launcher.request(spec(id, &["nothing"]), &[image().as_fd(), image().as_fd()]);
        assert_eq!(failure(&launcher, id), "no kvm here");
    }
}

fn a_failed_fork_is_an_answer(privilege: Privilege) {
    // Root is exempt from the limit that makes it fail here.
    let launcher = launcher(Privilege::UserNamespace, Variant { no_processes: true, ..Variant::default() });
    let _ = privilege;
    for id in [1, 2] {
        launcher.request(spec(id, &["nothing"]), &[image().as_fd(), image().as_fd()]);
        let error = failure(&launcher, id);
        assert!(error.starts_with("fork vm process: Resource temporarily unavailable"), "{error}");
    }
}

fn a_wrong_number_of_descriptors_is_refused(privilege: Privilege) {
    let mut launcher = launcher(privilege, Variant::default());
    let (file, net) = (
        image(),
        NetSpec {
            mac: [2, 0, 0, 0, 0, 1],
            address: Ipv4Addr::new(10, 0, 0, 1),
            prefix: 31,
            gateway: Ipv4Addr::new(10, 0, 0, 0),
            gateway_mac: [2, 0, 0, 0, 0, 2],
            mtu: 1500,
        },
    );
    for (count, net) in [(0, None), (1, None), (3, None), (2, Some(net)), (4, Some(net))] {
        let mut spec = spec(100, &["nothing"]);
        spec.net = net;
        launcher.request(spec, &vec![file.as_fd(); count]);
        let error = failure(&launcher, 100);
        assert!(error.starts_with(&format!("{count} file descriptors instead of")), "{error}");
    }
    assert_eq!(launcher.report(&["nothing"]), "");
}

fn a_living_vm_is_not_started_twice(privilege: Privilege) {
    let mut launcher = launcher(privilege, Variant::default());
    let vm = launcher.start(&["wait"]);
    launcher.request(spec(vm.id.0, &["nothing"]), &[image().as_fd(), image().as_fd()]);
    assert_eq!(failure(&launcher, vm.id.0), format!("vm {} is already running", vm.id));
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

fn no_tenant_leaves_anything_in_the_launchers_memory(privilege: Privilege) {
    let launcher = launcher(privilege, Variant::default());
    // Not a literal: that would be in the launcher's program, which is this one.
    let secret = ["a", "tenants", "secret", "4711"].join("-");
    let tenant = |id| {
        let mut tenant = spec(id, &["nothing", &secret]);
        tenant.env = vec![(secret.clone(), secret.clone())];
        tenant
    };
    let (_ours, theirs) = channel::pair().unwrap();
    launcher.request(tenant(900), &[image().as_fd(), theirs.as_fd()]);
    assert!(matches!(launcher.reply(), Some((LauncherReply::Started { .. }, _))));
    assert!(matches!(launcher.reply(), Some((LauncherReply::Exited { .. }, _))));
    launcher.request(tenant(901), &[]);
    failure(&launcher, 901);

    assert_eq!(occurrences(launcher.handle.pid, secret.as_bytes()), 0);
    // The search does find what is there: a vm's own process keeps its spec.
    let (_ours, theirs) = channel::pair().unwrap();
    let mut tenant = tenant(902);
    tenant.args = vec!["wait".into()];
    launcher.request(tenant, &[image().as_fd(), theirs.as_fd()]);
    let Some((LauncherReply::Started { pid, .. }, _)) = launcher.reply() else { panic!("not started") };
    assert_ne!(occurrences(pid, secret.as_bytes()), 0);
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
    without_kvm_every_start_says_why,
    a_failed_fork_is_an_answer,
    a_wrong_number_of_descriptors_is_refused,
    a_living_vm_is_not_started_twice,
    a_malformed_request_does_not_end_the_launcher,
    a_launcher_with_threads_refuses_to_serve,
    a_missing_program_is_an_error_at_once;
    no_tenant_leaves_anything_in_the_launchers_memory,
];
