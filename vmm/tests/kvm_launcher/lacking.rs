//! Hosts that lack something: no VM runs, and whoever asked for one is told what is missing, in one line.

use std::process::Command;

use nix::sched::{CloneFlags, unshare};
use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_bind, mount_change};
use rustix::process::{Resource, Rlimit, setrlimit};
use weir_vmm::launcher::{self, Inherited, Setup, spawn_command};
use weir_vmm::{ExitReason, VmEvent, kvm, machine};

use crate::{Launcher, guests, image};

/// Begins the argument of this program for a launcher on such a host.
pub(crate) const MODE: &str = "lacking-";

/// What needs root: device nodes, and users of their own for VMs.
pub(crate) const TESTS: [(&str, fn()); 3] = [
    ("without_kvm_a_start_says_how_to_get_it", without_kvm_a_start_says_how_to_get_it),
    ("a_forbidden_kvm_says_how_to_be_allowed", a_forbidden_kvm_says_how_to_be_allowed),
    ("a_vm_that_kvm_never_runs_ends", a_vm_that_kvm_never_runs_ends),
];

/// Be the launcher of a host that lacks what `mode` says.
pub(crate) fn launcher(mode: &str) -> ! {
    match mode.strip_prefix(MODE) {
        // No driver has this number.
        Some("driver") => replace_kvm(MountFlags::empty(), makedev(10, 1_000_000)),
        // A device node on a file system without devices may not be opened, not even by root.
        Some("permission") => replace_kvm(MountFlags::NODEV, makedev(10, 232)),
        Some("tasks") => {
            let kvm = kvm::open().map_err(|error| error.to_string());
            launcher::run(Setup { kvm, body: without_tasks, filter: None })
        }
        other => panic!("{other:?}"),
    }
    launcher::main()
}

/// Puts another device node in the place of /dev/kvm, for this process.
fn replace_kvm(flags: MountFlags, device: u64) {
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE).unwrap();
    mount("tmpfs", "/dev/shm", "tmpfs", flags, None).unwrap();
    mknodat(CWD, "/dev/shm/kvm", FileType::CharacterDevice, Mode::from_raw_mode(0o666), device).unwrap();
    mount_bind("/dev/shm/kvm", kvm::PATH).unwrap();
}

/// A VM whose user may not have the task that KVM makes for it.
fn without_tasks(inherited: Inherited) -> ExitReason {
    setrlimit(Resource::Nproc, Rlimit { current: Some(0), maximum: Some(0) }).unwrap();
    machine::serve(inherited.kvm, inherited.control, |_| Ok(()))
}

fn on(mode: &str) -> Launcher {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.arg(format!("{MODE}{mode}"));
    Launcher { handle: spawn_command(command).unwrap(), next: 1 }
}

fn refused(mode: &str) -> String {
    let error = on(mode).try_start(&image(guests::basics::hello::code())).err().expect("no vm runs here");
    assert!(!error.contains('\n'), "{error}");
    error
}

fn without_kvm_a_start_says_how_to_get_it() {
    let error = refused("driver");
    assert!(error.starts_with("/dev/kvm does not exist: load the kvm module"), "{error}");
}

fn a_forbidden_kvm_says_how_to_be_allowed() {
    let error = refused("permission");
    assert!(error.starts_with("/dev/kvm may not be opened: add this user to the group"), "{error}");
}

/// Kernels that make no such task run the guest all the same.
fn a_vm_that_kvm_never_runs_ends() {
    let mut launcher = on("tasks");
    let vm = launcher.start(&image(guests::basics::hello::code()));
    let (events, status) = launcher.finish(vm);
    assert_eq!(status, "exit code 0");
    match events.last() {
        Some(VmEvent::Exit(ExitReason::Host(text))) => assert!(text.contains("EAGAIN"), "{text}"),
        Some(VmEvent::Exit(ExitReason::Exited(42))) => {}
        other => panic!("{other:?}"),
    }
}
