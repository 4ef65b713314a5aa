//! Beginning and end: nothing outlives its owner, nothing is left behind.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};

use rustix::process::{Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};
use weir_vmm::channel;
use weir_vmm::{VmCommand, VmEvent};

use crate::harness::{Launcher, Privilege, Variant, Vm, launcher, readable, receive};
use crate::tests;

fn running(launcher: &mut Launcher, count: usize) -> Vec<Vm> {
    let vms: Vec<Vm> = (0..count).map(|_| launcher.start(&["wait"])).collect();
    for vm in &vms {
        assert_eq!(receive::<VmEvent>(&vm.control).unwrap().0, VmEvent::Ready);
    }
    vms
}

fn all_end(pidfds: impl IntoIterator<Item = OwnedFd>) {
    for pidfd in pidfds {
        assert!(readable(&pidfd), "a process outlives its owner");
    }
}

fn a_killed_launcher_takes_every_vm_along(privilege: Privilege) {
    let mut launcher = launcher(privilege, Variant::default());
    let vms = running(&mut launcher, 5);
    pidfd_send_signal(&launcher.handle.pidfd, Signal::KILL).unwrap();
    assert!(launcher.reply().is_none());
    all_end(vms.into_iter().map(|vm| vm.pidfd).chain([launcher.handle.pidfd]));
}

fn a_closed_socket_ends_the_launcher_and_every_vm(privilege: Privilege) {
    let mut launcher = launcher(privilege, Variant::default());
    let vms = running(&mut launcher, 5);
    drop(launcher.handle.socket);
    all_end(vms.into_iter().map(|vm| vm.pidfd).chain([launcher.handle.pidfd]));
}

fn a_stopped_launcher_does_not_keep_its_vms_when_killed(privilege: Privilege) {
    let mut launcher = launcher(privilege, Variant::default());
    let vms = running(&mut launcher, 2);
    pidfd_send_signal(&launcher.handle.pidfd, Signal::STOP).unwrap();
    pidfd_send_signal(&launcher.handle.pidfd, Signal::KILL).unwrap();
    all_end(vms.into_iter().map(|vm| vm.pidfd).chain([launcher.handle.pidfd]));
}

fn signals_of_the_terminal_are_for_weir_alone(privilege: Privilege) {
    let mut launcher = launcher(privilege, Variant::default());
    let vms = running(&mut launcher, 1);
    for signal in [Signal::INT, Signal::TERM, Signal::HUP, Signal::QUIT] {
        pidfd_send_signal(&launcher.handle.pidfd, signal).unwrap();
        pidfd_send_signal(&vms[0].pidfd, signal).unwrap();
    }
    channel::send(vms[0].control.as_fd(), &VmCommand::Stop, &[]).unwrap();
    assert_eq!(launcher.exited(&vms[0]), "exit code 0");
}

fn a_killed_vm_is_reported_and_the_others_live(privilege: Privilege) {
    let mut launcher = launcher(privilege, Variant::default());
    let vms = running(&mut launcher, 3);
    pidfd_send_signal(&vms[1].pidfd, Signal::KILL).unwrap();
    assert_eq!(launcher.exited(&vms[1]), "signal 9 (SIGKILL)");
    // Nobody else can reap it any more.
    assert!(waitid(WaitId::PidFd(vms[1].pidfd.as_fd()), WaitIdOptions::EXITED).is_err());
    channel::send(vms[2].control.as_fd(), &VmCommand::Stop, &[]).unwrap();
    assert_eq!(launcher.exited(&vms[2]), "exit code 0");
}

fn a_vm_whose_weir_hung_up_ends(privilege: Privilege) {
    let mut launcher = launcher(privilege, Variant::default());
    let Vm { id, pid, pidfd, control } = running(&mut launcher, 1).remove(0);
    drop(control);
    let (control, _) = channel::pair().unwrap();
    assert_eq!(launcher.exited(&Vm { id, pid, pidfd, control }), "exit code 0");
}

/// Open file descriptors and children, zombies included, of a launcher.
fn held_by(launcher: &Launcher) -> (usize, String) {
    let process = format!("/proc/{}", launcher.handle.pid);
    let files = fs::read_dir(format!("{process}/fd")).unwrap().count();
    (files, fs::read_to_string(format!("{process}/task/{}/children", launcher.handle.pid)).unwrap())
}

fn two_hundred_starts_leave_nothing_behind(privilege: Privilege) {
    let mut launcher = launcher(privilege, Variant::default());
    launcher.report(&["nothing"]);
    let before = held_by(&launcher);
    for _ in 0..200 {
        launcher.report(&["nothing"]);
    }
    assert_eq!(before.1, "");
    assert_eq!(held_by(&launcher), before);
}

fn fifty_at_once_have_different_processes_and_all_end(privilege: Privilege) {
    let mut launcher = launcher(privilege, Variant::default());
    let vms = running(&mut launcher, 50);
    let pids: std::collections::BTreeSet<i32> = vms.iter().map(|vm| vm.pid).collect();
    assert_eq!(pids.len(), 50);
    for vm in &vms {
        channel::send(vm.control.as_fd(), &VmCommand::Stop, &[]).unwrap();
        assert_eq!(launcher.exited(vm), "exit code 0");
    }
}

tests![
    a_killed_launcher_takes_every_vm_along,
    a_closed_socket_ends_the_launcher_and_every_vm,
    a_stopped_launcher_does_not_keep_its_vms_when_killed,
    signals_of_the_terminal_are_for_weir_alone,
    a_killed_vm_is_reported_and_the_others_live,
    a_vm_whose_weir_hung_up_ends,
    fifty_at_once_have_different_processes_and_all_end;
    two_hundred_starts_leave_nothing_behind,
];
