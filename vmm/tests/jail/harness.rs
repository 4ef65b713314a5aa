//! Launchers to test, and VMs in them.

use std::fs::{self, File};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::Command;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{
    DumpableBehavior, Gid, Resource, Rlimit, Uid, geteuid, set_dumpable_behavior, setrlimit,
};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
use weir_vmm::channel::{self, ChannelError};
use weir_vmm::jail::seccomp;
use weir_vmm::launcher::protocol::{ChildId, LauncherReply, LauncherRequest};
use weir_vmm::launcher::{LauncherHandle, Setup, run, spawn_command};
use weir_vmm::{BootOrder, ExitReason, VmCommand, VmEvent, VmId, VmSpec, event};

use crate::probes;

/// Bound of every wait: far more than anything here takes.
const PATIENCE: Timespec = Timespec { tv_sec: 8, tv_nsec: 0 };
/// An unprivileged user.
const NOBODY: u32 = 65534;

/// Who starts the launcher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Privilege {
    /// Real root.
    Root,
    /// Root of a user namespace that maps one unprivileged user.
    UserNamespace,
}

impl Privilege {
    pub(crate) const ALL: [Self; 2] = [Self::Root, Self::UserNamespace];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::UserNamespace => "userns",
        }
    }

    /// Without root there are no root tests.
    pub(crate) fn available(self) -> bool {
        self == Self::UserNamespace || geteuid().is_root()
    }
}

/// How a test's launcher differs from weir's.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Variant {
    /// Without the seccomp layer.
    pub(crate) unfiltered: bool,
    /// Without /dev/kvm.
    pub(crate) no_kvm: bool,
    /// Has a second thread.
    pub(crate) threaded: bool,
    /// Cannot fork.
    pub(crate) no_processes: bool,
}

/// Be the launcher that [`launcher`] described by `words`.
pub(crate) fn as_launcher(words: &str) -> ! {
    let words: Vec<&str> = words.split('+').collect();
    let has = |word: &str| words.contains(&word);
    if has("userns") {
        enter_user_namespace();
    }
    if has("no_processes") {
        setrlimit(Resource::Nproc, Rlimit { current: Some(0), maximum: Some(0) }).unwrap();
    }
    if has("threaded") {
        let (sender, receiver) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            sender.send(()).unwrap();
            loop {
                std::thread::park();
            }
        });
        receiver.recv().unwrap();
    }
    run(Setup {
        kvm: if has("no_kvm") { Err("no kvm here".into()) } else { Ok(null()) },
        body: probes::body,
        filter: (!has("unfiltered")).then(|| seccomp::compile().unwrap()),
    })
}

/// As weir does when it is not root; from root, becomes an unprivileged user first.
fn enter_user_namespace() {
    if geteuid().is_root() {
        let (uid, gid) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
        set_thread_groups(&[]).unwrap();
        set_thread_res_gid(gid, gid, gid).unwrap();
        set_thread_res_uid(uid, uid, uid).unwrap();
        // Changing the user made /proc/self root's.
        set_dumpable_behavior(DumpableBehavior::Dumpable).unwrap();
    }
    let (uid, gid) = (geteuid().as_raw(), rustix::process::getegid().as_raw());
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWUSER).expect("this host forbids user namespaces");
    fs::write("/proc/self/setgroups", "deny").unwrap();
    fs::write("/proc/self/uid_map", format!("0 {uid} 1")).unwrap();
    fs::write("/proc/self/gid_map", format!("0 {gid} 1")).unwrap();
}

/// A running launcher of this test.
pub(crate) struct Launcher {
    pub(crate) handle: LauncherHandle,
    next: u64,
}

/// Starts one.
pub(crate) fn launcher(privilege: Privilege, variant: Variant) -> Launcher {
    let mut mode = "launcher+".to_owned();
    let words = [
        ("userns", privilege == Privilege::UserNamespace),
        ("unfiltered", variant.unfiltered),
        ("no_kvm", variant.no_kvm),
        ("threaded", variant.threaded),
        ("no_processes", variant.no_processes),
    ];
    for (word, _) in words.into_iter().filter(|(_, wanted)| *wanted) {
        mode.push_str(word);
        mode.push('+');
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.arg(mode);
    Launcher { handle: spawn_command(command).unwrap(), next: 1 }
}

/// A child of the launcher.
pub(crate) struct Vm {
    pub(crate) id: ChildId,
    pub(crate) pid: i32,
    pub(crate) pidfd: OwnedFd,
    pub(crate) control: OwnedFd,
}

/// Tells a child to run the probe `args`.
pub(crate) fn order(args: &[&str]) -> VmCommand {
    let spec = VmSpec {
        id: VmId(1),
        pool: "test".into(),
        memory: 1 << 20,
        vcpus: 1,
        net: None,
        env: Vec::new(),
        args: args.iter().map(ToString::to_string).collect(),
        log_lines: 100,
    };
    VmCommand::Boot(Box::new(BootOrder { spec, template: false }))
}

/// Stands in for /dev/kvm.
pub(crate) fn null() -> OwnedFd {
    File::open("/dev/null").unwrap().into()
}

impl Launcher {
    pub(crate) fn request(&self, child: u64, files: &[BorrowedFd<'_>]) {
        channel::send(self.handle.socket.as_fd(), &LauncherRequest::Fork(ChildId(child)), files).unwrap();
    }

    /// The next reply; `None`: the launcher is gone.
    pub(crate) fn reply(&self) -> Option<(LauncherReply, Vec<OwnedFd>)> {
        receive(&self.handle.socket)
    }

    /// Has a child forked, which does not know yet what it is for, and expects success.
    pub(crate) fn fork(&mut self) -> Vm {
        let id = ChildId(self.next);
        self.next += 1;
        let (ours, theirs) = channel::pair().unwrap();
        self.request(id.0, &[theirs.as_fd()]);
        match self.reply() {
            Some((LauncherReply::Forked { child, pid }, mut files)) if child == id && files.len() == 1 => {
                Vm { id, pid, pidfd: files.remove(0), control: ours }
            }
            other => panic!("fork: {other:?}"),
        }
    }

    /// Has a child forked and gives it a probe to run.
    pub(crate) fn start(&mut self, args: &[&str]) -> Vm {
        let vm = self.fork();
        event::command(&vm.control, &order(args), &[]).unwrap();
        vm
    }

    /// Expects the end of `vm` to be told next.
    pub(crate) fn exited(&self, vm: &Vm) -> String {
        match self.reply() {
            Some((LauncherReply::Exited { child, status }, _)) if child == vm.id => status,
            other => panic!("end of vm {}: {other:?}", vm.id),
        }
    }

    /// Runs a probe to its end: its report, its last word, and its status.
    pub(crate) fn probe(&mut self, args: &[&str]) -> Outcome {
        let vm = self.start(args);
        let mut outcome = Outcome { report: String::new(), last_word: None, status: String::new() };
        while let Some((event, _)) = receive::<VmEvent>(&vm.control) {
            match event {
                VmEvent::Log(text) => outcome.report.push_str(&text),
                VmEvent::Exit(reason) => outcome.last_word = Some(reason),
                VmEvent::Ready | VmEvent::Frozen(_) | VmEvent::Report { .. } => {}
            }
        }
        outcome.status = self.exited(&vm);
        outcome
    }

    /// What a probe reports that ends well.
    pub(crate) fn report(&mut self, args: &[&str]) -> String {
        let outcome = self.probe(args);
        assert_eq!(outcome.status, "exit code 0", "{args:?}: {:?}", outcome.last_word);
        assert_eq!(outcome.last_word, Some(ExitReason::Exited(0)), "{args:?}");
        outcome.report
    }
}

/// What became of a probe.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) report: String,
    pub(crate) last_word: Option<ExitReason>,
    pub(crate) status: String,
}

/// The next message on `socket`, in bounded time; `None` at its end.
pub(crate) fn receive<T: serde::de::DeserializeOwned>(socket: &OwnedFd) -> Option<(T, Vec<OwnedFd>)> {
    assert!(readable(socket), "no message in time");
    let received: Result<_, ChannelError> = channel::recv(socket.as_fd());
    received.unwrap()
}

/// Waits, in bounded time, for a message, an end of file or the end of a process.
pub(crate) fn readable(file: &OwnedFd) -> bool {
    poll(&mut [PollFd::new(file, PollFlags::IN)], Some(&PATIENCE)).unwrap() == 1
}
