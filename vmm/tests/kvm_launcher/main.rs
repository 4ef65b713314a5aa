//! Real VMs through the real launcher: `weir launcher` is this program, started again.

#![allow(clippy::unwrap_used, reason = "this program is a test, though it runs itself")]

#[path = "../../src/image/testing.rs"]
#[allow(dead_code, reason = "shared with tests that break images")]
mod elf;
#[path = "../kvm_machine/guests/mod.rs"]
#[allow(dead_code, reason = "shared with tests of the machine")]
mod guests;
mod lacking;

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::process::{Signal, geteuid, pidfd_send_signal};
use weir_vmm::launcher::protocol::{ChildId, LauncherReply, LauncherRequest};
use weir_vmm::launcher::{self, LauncherHandle};
use weir_vmm::{BootOrder, CrashReason, ExitReason, VmCommand, VmEvent, VmId, VmSpec, channel, event};

use elf::{PF_R, PF_W, PF_X, TestElf, TestSegment};
use guests::{CODE, DATA, RODATA, RUNTIME};

/// Bound of every wait: far more than anything here takes.
const PATIENCE: Timespec = Timespec { tv_sec: 9, tv_nsec: 0 };

fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        Some("launcher") => launcher::main(),
        Some(mode) if mode.starts_with(lacking::MODE) => lacking::launcher(mode),
        _ => {}
    }
    let tests: [(&str, fn()); 8] = [
        ("a_guest_says_hello_and_exits", a_guest_says_hello_and_exits),
        ("a_parked_guest_stops_when_told", a_parked_guest_stops_when_told),
        ("a_spinning_guest_stops_when_told", a_spinning_guest_stops_when_told),
        ("a_spinning_guest_stops_when_weir_hangs_up", a_spinning_guest_stops_when_weir_hangs_up),
        ("a_spinning_guest_can_be_killed", a_spinning_guest_can_be_killed),
        ("a_crash_is_the_last_word_of_that_vm_alone", a_crash_is_the_last_word_of_that_vm_alone),
        ("what_is_no_image_is_refused", what_is_no_image_is_refused),
        ("a_killed_launcher_takes_spinning_guests_along", a_killed_launcher_takes_spinning_guests_along),
    ];
    let trial = |(name, run): (&str, fn())| {
        Trial::test(name, move || std::panic::catch_unwind(run).map_err(|_| Failed::without_message()))
    };
    let root = geteuid().is_root();
    let as_root = lacking::TESTS.into_iter().map(|test| trial(test).with_ignored_flag(!root));
    let trials = tests.into_iter().map(trial).chain(as_root).collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

struct Launcher {
    handle: LauncherHandle,
    next: u64,
}

struct Vm {
    id: ChildId,
    pidfd: OwnedFd,
    control: OwnedFd,
}

fn start_launcher() -> Launcher {
    Launcher { handle: launcher::spawn(&std::env::current_exe().unwrap()).unwrap(), next: 1 }
}

fn readable(file: &OwnedFd) -> bool {
    poll(&mut [PollFd::new(file, PollFlags::IN)], Some(&PATIENCE)).unwrap() == 1
}

fn receive<T: serde::de::DeserializeOwned>(socket: &OwnedFd) -> Option<(T, Vec<OwnedFd>)> {
    assert!(readable(socket), "no message in time");
    channel::recv(socket.as_fd()).unwrap()
}

fn image(code: &[u8]) -> Vec<u8> {
    TestElf::guest(CODE, code)
        .with(TestSegment::load(RUNTIME, PF_R | PF_X, guests::common::runtime::code()))
        .with(TestSegment { memory_size: 0x2000, ..TestSegment::load(DATA, PF_R | PF_W, &[]) })
        .with(TestSegment::load(RODATA, PF_R, &[0x90; 64]))
        .build()
}

fn sealed(bytes: &[u8]) -> File {
    let mut file =
        File::from(memfd_create("image", MemfdFlags::ALLOW_SEALING | MemfdFlags::CLOEXEC).unwrap());
    file.write_all(bytes).unwrap();
    fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL).unwrap();
    file
}

impl Launcher {
    fn start(&mut self, image: &[u8]) -> Vm {
        self.try_start(image).unwrap_or_else(|error| panic!("{error}"))
    }

    fn try_start(&mut self, image: &[u8]) -> Result<Vm, String> {
        let id = ChildId(self.next);
        self.next += 1;
        let spec = VmSpec {
            id: VmId(1),
            pool: "test".into(),
            memory: 4 << 20,
            vcpus: 1,
            net: None,
            env: vec![("NAME".into(), "value".into())],
            args: Vec::new(),
            log_lines: 100,
        };
        let (control, theirs) = channel::pair().unwrap();
        let image = sealed(image);
        channel::send(self.handle.socket.as_fd(), &LauncherRequest::Fork(id), &[theirs.as_fd()]).unwrap();
        match receive(&self.handle.socket) {
            Some((LauncherReply::Forked { child, .. }, mut files)) if child == id => {
                let order = VmCommand::Boot(Box::new(BootOrder { spec, template: false }));
                event::command(&control, &order, &[image.as_fd()]).unwrap();
                Ok(Vm { id, pidfd: files.remove(0), control })
            }
            Some((LauncherReply::Failed { error, .. }, _)) => Err(error),
            other => panic!("{other:?}"),
        }
    }

    /// The last events of `vm` and the status of its process.
    fn finish(&self, vm: Vm) -> (Vec<VmEvent>, String) {
        let events = std::iter::from_fn(|| receive(&vm.control)).map(|(event, _)| event).collect();
        match receive(&self.handle.socket) {
            Some((LauncherReply::Exited { child, status }, _)) if child == vm.id => (events, status),
            other => panic!("{other:?}"),
        }
    }

    /// Starts a guest that says READY and then does what `code` does.
    fn ready(&mut self, code: &[u8]) -> Vm {
        let vm = self.start(&image(code));
        assert_eq!(receive::<VmEvent>(&vm.control).unwrap().0, VmEvent::Ready);
        vm
    }
}

fn stopped() -> (Vec<VmEvent>, String) {
    (vec![VmEvent::Exit(ExitReason::Stopped)], "exit code 0".to_owned())
}

fn a_guest_says_hello_and_exits() {
    let mut launcher = start_launcher();
    let vm = launcher.start(&image(guests::basics::hello::code()));
    let (events, status) = launcher.finish(vm);
    assert_eq!(status, "exit code 0", "{events:?}");
    assert!(
        matches!(&events[..], [VmEvent::Ready, VmEvent::Log(_), VmEvent::Exit(ExitReason::Exited(42))]),
        "{events:?}"
    );
}

fn a_parked_guest_stops_when_told() {
    let mut launcher = start_launcher();
    let vm = launcher.ready(guests::basics::park_forever::code());
    channel::send(vm.control.as_fd(), &VmCommand::Stop, &[]).unwrap();
    assert_eq!(launcher.finish(vm), stopped());
}

fn a_spinning_guest_stops_when_told() {
    let mut launcher = start_launcher();
    let vm = launcher.ready(guests::basics::spin::code());
    channel::send(vm.control.as_fd(), &VmCommand::Stop, &[]).unwrap();
    assert_eq!(launcher.finish(vm), stopped());
}

fn a_spinning_guest_stops_when_weir_hangs_up() {
    let mut launcher = start_launcher();
    let Vm { id, control, pidfd } = launcher.ready(guests::basics::spin::code());
    drop(control);
    assert!(readable(&pidfd));
    match receive(&launcher.handle.socket) {
        Some((LauncherReply::Exited { child: ended, status }, _)) => {
            assert_eq!((ended, status.as_str()), (id, "exit code 0"));
        }
        other => panic!("{other:?}"),
    }
}

fn a_spinning_guest_can_be_killed() {
    let mut launcher = start_launcher();
    let vm = launcher.ready(guests::basics::spin::code());
    pidfd_send_signal(&vm.pidfd, Signal::KILL).unwrap();
    assert_eq!(launcher.finish(vm), (Vec::new(), "signal 9 (SIGKILL)".to_owned()));
}

fn a_crash_is_the_last_word_of_that_vm_alone() {
    let mut launcher = start_launcher();
    let neighbour = launcher.ready(guests::basics::park_forever::code());
    let vm = launcher.start(&image(guests::faults::fault_without_handler::code()));
    let (events, status) = launcher.finish(vm);
    assert_eq!(events, [VmEvent::Exit(ExitReason::Crashed(CrashReason::DoubleFault))]);
    assert_eq!(status, "exit code 0");
    channel::send(neighbour.control.as_fd(), &VmCommand::Stop, &[]).unwrap();
    assert_eq!(launcher.finish(neighbour), stopped());
}

fn what_is_no_image_is_refused() {
    let mut launcher = start_launcher();
    for bytes in [&b""[..], b"#!/bin/sh\n", &image(guests::basics::spin::code())[..100]] {
        let vm = launcher.start(bytes);
        let (events, status) = launcher.finish(vm);
        assert!(matches!(events[..], [VmEvent::Exit(ExitReason::Refused(_))]), "{events:?}");
        assert_eq!(status, "exit code 0");
    }
}

fn a_killed_launcher_takes_spinning_guests_along() {
    let mut launcher = start_launcher();
    let vms: Vec<Vm> = (0..4).map(|_| launcher.ready(guests::basics::spin::code())).collect();
    pidfd_send_signal(&launcher.handle.pidfd, Signal::KILL).unwrap();
    for vm in vms {
        assert!(readable(&vm.pidfd), "a vm outlives its launcher");
    }
}
