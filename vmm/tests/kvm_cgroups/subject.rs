//! Processes that want more than their share. They begin when their standard input ends.

use std::io::{Read, stdin};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, ChildStdin, Command, ExitCode, ExitStatus, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use rustix::thread::{CpuSet, sched_setaffinity};
use weir_vmm::cgroup::CgroupLease;

/// Be the process that [`Subject::start`] named.
pub(crate) fn run(mode: &str) -> ExitCode {
    stdin().read_to_end(&mut Vec::new()).unwrap();
    match mode.split_once('+') {
        None => loop {
            std::hint::spin_loop();
        },
        Some((_, mib)) => {
            let mut memory = vec![0_u8; mib.parse::<usize>().unwrap() << 20];
            memory.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
            std::hint::black_box(memory);
            ExitCode::SUCCESS
        }
    }
}

/// One of them, killed when dropped.
pub(crate) struct Subject {
    child: Child,
    pidfd: OwnedFd,
    start: Option<ChildStdin>,
}

impl Subject {
    /// Spins until it is killed.
    pub(crate) fn spinning() -> Self {
        Self::start("spin")
    }

    /// Fills so much memory, and ends.
    pub(crate) fn hoarding(mib: u32) -> Self {
        Self::start(&format!("hoard+{mib}"))
    }

    fn start(mode: &str) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        let mut child = command.arg(format!("subject+{mode}")).stdin(Stdio::piped()).spawn().unwrap();
        let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).unwrap();
        let start = child.stdin.take();
        Self { child, pidfd, start }
    }

    /// Puts it into a group.
    pub(crate) fn join(self, lease: &CgroupLease) -> Self {
        lease.add(Pid::from_child(&self.child).as_raw_nonzero().get()).unwrap();
        self
    }

    /// Lets it run on this CPU only.
    pub(crate) fn on(self, cpu: usize) -> Self {
        let mut set = CpuSet::new();
        set.set(cpu);
        sched_setaffinity(Some(Pid::from_child(&self.child)), &set).unwrap();
        self
    }

    pub(crate) fn go(&mut self) {
        self.start = None;
    }

    /// CPU time so far, ticks of 1/100 s.
    pub(crate) fn ticks(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        // proc_pid_stat(5): the name, field 2, ends with the last ")"; utime and stime are fields 14 and 15.
        let (_, fields) = stat.rsplit_once(") ").unwrap();
        fields.split(' ').skip(11).take(2).map(|field| field.parse::<u64>().unwrap()).sum()
    }

    /// Whether it ends within this time.
    pub(crate) fn ends_within(&self, time: Duration) -> bool {
        let timeout = Timespec::try_from(time).unwrap();
        poll(&mut [PollFd::from_borrowed_fd(self.pidfd.as_fd(), PollFlags::IN)], Some(&timeout)).unwrap() > 0
    }

    /// How it ended; it has bounded time for that.
    pub(crate) fn status(mut self) -> ExitStatus {
        assert!(self.ends_within(Duration::from_secs(9)), "it does not end");
        self.child.wait().unwrap()
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
