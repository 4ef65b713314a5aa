//! What jailed processes try.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CapabilitySet, capabilities, capabilities_secure_bits};
use weir_vmm::channel;
use weir_vmm::jail::limits::set_memory;
use weir_vmm::launcher::Inherited;
use weir_vmm::{ExitReason, VmCommand, VmEvent};

use crate::sys::{self, call, getpid_32_bit};

/// Waits, jailed, for its order as every child does; then runs the probe that its arguments name and logs its report.
pub(crate) fn body(inherited: Inherited) -> ExitReason {
    let order = match channel::recv(inherited.control.as_fd()).unwrap() {
        Some((VmCommand::Boot(order), _)) => order,
        _ => return ExitReason::Stopped,
    };
    let args: Vec<&str> = order.spec.args.iter().map(String::as_str).collect();
    let report = match args.as_slice() {
        ["nothing"] => String::new(),
        ["wait"] | ["remember", _] => return wait(&inherited),
        ["panic"] => panic!("the probe panics"),
        ["panic-long"] => panic!("{}", "long ".repeat(100_000)),
        ["overflow-stack"] => return ExitReason::Exited(overflow_stack(0)),
        ["call", number, arguments @ ..] => raw(number, arguments),
        ["getpid-32-bit"] => getpid_32_bit().to_string(),
        ["allowed"] => allowed(),
        ["files"] => files(),
        ["descriptors"] => descriptors(),
        ["capabilities"] => sets(),
        ["identity"] => identity(),
        ["limits"] => limits(),
        ["map", sizes @ ..] => map(sizes),
        ["limit-and-map", guest, sizes @ ..] => {
            set_memory(mib(guest)).unwrap();
            map(sizes)
        }
        ["processes"] => processes(),
        ["fork-bomb"] => fork_bomb(),
        ["identity-then-wait"] => {
            channel::send(inherited.control.as_fd(), &VmEvent::Log(identity()), &[]).unwrap();
            return wait(&inherited);
        }
        ["network"] => network(),
        ["exec"] => format!("{:?}", Command::new("/bin/sh").exec().kind()),
        ["flags"] => flags(),
        other => format!("unknown probe {other:?}"),
    };
    channel::send(inherited.control.as_fd(), &VmEvent::Log(report), &[]).unwrap();
    ExitReason::Exited(0)
}

/// Says READY, then waits for weir to hang up.
fn wait(inherited: &Inherited) -> ExitReason {
    channel::send(inherited.control.as_fd(), &VmEvent::Ready, &[]).unwrap();
    poll(&mut [PollFd::new(&inherited.control, PollFlags::IN)], None).unwrap();
    ExitReason::Stopped
}

#[allow(unconditional_recursion)]
fn overflow_stack(depth: i32) -> i32 {
    let room = std::hint::black_box([depth; 1024]);
    overflow_stack(depth + 1) + room[0]
}

fn raw(number: &str, arguments: &[&str]) -> String {
    let mut values = [0; 6];
    for (value, text) in values.iter_mut().zip(arguments) {
        *value = text.parse().unwrap();
    }
    match call(number.parse().unwrap(), values) {
        Ok(result) => format!("ok {result}"),
        Err(error) => nix::errno::Errno::from_raw(error.raw_os_error().unwrap()).to_string(),
    }
}

/// What a VM's process does all the time.
fn allowed() -> String {
    let mut random = [0; 16];
    rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty()).unwrap();
    let memory = std::hint::black_box(vec![1_u8; 8 << 20]);
    let now = std::time::Instant::now();
    let event = rustix::event::eventfd(0, rustix::event::EventfdFlags::NONBLOCK).unwrap();
    rustix::io::write(&event, &1_u64.to_ne_bytes()).unwrap();
    let mut fds = [PollFd::new(&event, PollFlags::IN)];
    assert_eq!(poll(&mut fds, None).unwrap(), 1);
    format!("{} {}", memory.len(), now.elapsed().as_nanos() < u128::MAX)
}

fn outcome<T>(result: io::Result<T>) -> String {
    match result {
        Ok(_) => "ok".to_owned(),
        Err(error) => format!("{:?}", error.kind()),
    }
}

fn files() -> String {
    [
        format!("/ has {} entries", fs::read_dir("/").unwrap().count()),
        format!(".. has {} entries", fs::read_dir("..").unwrap().count()),
        format!("read /etc/passwd: {}", outcome(File::open("/etc/passwd"))),
        format!("read /proc/self/status: {}", outcome(File::open("/proc/self/status"))),
        format!("open /dev/kvm: {}", outcome(File::open("/dev/kvm"))),
        format!("write /file: {}", outcome(File::create("/file"))),
        format!("make /directory: {}", outcome(fs::create_dir("/directory"))),
        format!("chmod /: {}", outcome(fs::set_permissions("/", mode(0o777)))),
    ]
    .join("\n")
}

fn mode(bits: u32) -> fs::Permissions {
    std::os::unix::fs::PermissionsExt::from_mode(bits)
}

/// Numbers of all open file descriptors and what they are.
fn descriptors() -> String {
    let open = (0..4096_u64).filter(|&fd| call(libc::SYS_fcntl, [fd, 1, 0, 0, 0, 0]).is_ok());
    open.map(|fd| fd.to_string()).collect::<Vec<_>>().join(" ")
}

/// Effective, permitted, inheritable, bounding, ambient; then securebits.
fn sets() -> String {
    let own = capabilities(None).unwrap();
    let by_prctl = move |operation: i32, argument: Option<u64>| {
        (0..64_u64).filter(move |&number| {
            let arguments = match argument {
                Some(argument) => [operation as u64, argument, number, 0, 0, 0],
                None => [operation as u64, number, 0, 0, 0, 0],
            };
            call(libc::SYS_prctl, arguments).is_ok_and(|held| held == 1)
        })
    };
    let bounding = by_prctl(libc::PR_CAPBSET_READ, None).count();
    let ambient = by_prctl(libc::PR_CAP_AMBIENT, Some(libc::PR_CAP_AMBIENT_IS_SET as u64)).count();
    let count = |set: CapabilitySet| set.bits().count_ones();
    let securebits = capabilities_secure_bits().unwrap().bits();
    let (effective, permitted, inheritable) =
        (count(own.effective), count(own.permitted), count(own.inheritable));
    format!("{effective} {permitted} {inheritable} {bounding} {ambient} {securebits:#x}")
}

/// Real, effective and saved user and group, and supplementary groups; then attempts to become root again.
fn identity() -> String {
    let user = nix::unistd::getresuid().unwrap();
    let group = nix::unistd::getresgid().unwrap();
    assert!(user.real == user.effective && user.real == user.saved);
    assert!(group.real == group.effective && group.real == group.saved);
    let groups = rustix::process::getgroups().unwrap();
    let groups: Vec<u32> = groups.into_iter().map(rustix::process::Gid::as_raw).collect();
    format!("{} {} {groups:?}", user.real, group.real)
}

fn limits() -> String {
    let kinds = [Resource::Nofile, Resource::Fsize, Resource::Core, Resource::Memlock, Resource::As];
    let limits = kinds.map(|kind| {
        let limit = getrlimit(kind);
        assert_eq!(limit.current, limit.maximum);
        limit.current.unwrap().to_string()
    });
    limits.join(" ")
}

fn mib(text: &str) -> u64 {
    text.parse::<u64>().unwrap() << 20
}

/// For each of `sizes`, MiB, whether so much more could be mapped; and then whether the limit could be raised.
fn map(sizes: &[&str]) -> String {
    let mut report: Vec<String> = sizes
        .iter()
        .map(|size| {
            let length = mib(size).to_string();
            let flags = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE).to_string();
            let mapped = raw(&libc::SYS_mmap.to_string(), &["0", &length, "0", &flags]);
            match mapped.strip_prefix("ok ") {
                Some(address) => raw(&libc::SYS_munmap.to_string(), &[address, &length]),
                None => "no".to_owned(),
            }
        })
        .collect();
    let unlimited = Rlimit { current: None, maximum: None };
    report.push(outcome(setrlimit(Resource::As, unlimited).map_err(io::Error::from)));
    report.join(", ")
}

fn processes() -> String {
    let pid = rustix::process::getpid().as_raw_nonzero();
    let parent = rustix::process::getppid();
    let session = rustix::process::getsid(None).unwrap().as_raw_nonzero();
    // Signal 0 to everything that can be seen.
    let others = call(libc::SYS_kill, [u64::MAX, 0, 0, 0, 0, 0]).unwrap_err().raw_os_error();
    let visible = (2..=40_000_u64).filter(|&pid| {
        call(libc::SYS_kill, [pid, 0, 0, 0, 0, 0])
            .map_or_else(|e| e.raw_os_error() != Some(libc::ESRCH), |_| true)
    });
    let visible = visible.count();
    let attach =
        call(libc::SYS_ptrace, [libc::PTRACE_ATTACH.into(), 2, 0, 0, 0, 0]).unwrap_err().raw_os_error();
    let esrch = Some(libc::ESRCH);
    format!(
        "pid {pid} parent {parent:?} session {session} kill(-1) {} visible {visible} ptrace {}",
        if others == esrch { "nobody" } else { "somebody" },
        if attach == esrch { "nobody" } else { "somebody" }
    )
}

/// How many of 20 children could be made. They stop at once, but are not reaped, so they still count.
fn fork_bomb() -> String {
    (0..20).take_while(|_| sys::fork_a_child_that_exits().is_ok()).count().to_string()
}

fn network() -> String {
    let connect = std::net::TcpStream::connect("127.0.0.1:9");
    let interfaces = nix::net::if_::if_nameindex().map(|list| list.iter().count());
    format!("{} {}", outcome(connect), interfaces.map_or_else(|e| e.to_string(), |count| count.to_string()))
}

/// no_new_privs, dumpable, seccomp mode.
fn flags() -> String {
    let get = |operation: i32| raw(&libc::SYS_prctl.to_string(), &[operation.to_string().as_str()]);
    [libc::PR_GET_NO_NEW_PRIVS, libc::PR_GET_DUMPABLE, libc::PR_GET_SECCOMP].map(get).join(", ")
}
