//! The launcher's system calls that no safe wrapper offers.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

/// Which side of [`fork`] this is.
pub(super) enum Fork {
    /// The new process.
    Child,
    /// The old one.
    Parent {
        /// The child, in the caller's pid namespace.
        pid: i32,
        /// The child, for good.
        pidfd: OwnedFd,
    },
}

/// Forks into a pid, mount, ipc and uts namespace of its own. The child is the first process of its pid namespace.
///
/// # Errors
/// `InvalidInput` if this process has more than one thread; else what clone3(2) says.
pub(super) fn fork() -> io::Result<Fork> {
    single_threaded()?;
    let mut pidfd: i32 = -1;
    let namespaces = libc::CLONE_NEWPID | libc::CLONE_NEWNS | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;
    // SAFETY: all fields are integers, for which zero is a value (and the kernel's default).
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.flags = u64::from((namespaces | libc::CLONE_PIDFD).unsigned_abs());
    arguments.exit_signal = u64::from(libc::SIGCHLD.unsigned_abs());
    arguments.pidfd = (&raw mut pidfd).addr() as u64;
    // SAFETY: without CLONE_VM and with no stack given this is fork: the child runs on a copy of everything. The only
    // thread is the caller's (checked above, and nobody else could start one since), so no lock of the copy is held
    // by a thread that does not exist there. `arguments` and `pidfd` live on this frame, of the sizes given.
    let result =
        unsafe { libc::syscall(libc::SYS_clone3, &raw mut arguments, size_of::<libc::clone_args>()) };
    match result {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Fork::Child),
        pid => {
            // SAFETY: clone3 succeeded with CLONE_PIDFD, so it stored a new descriptor here that nobody else owns.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            let pid = i32::try_from(pid).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
            Ok(Fork::Parent { pid, pidfd })
        }
    }
}

/// unshare(2): CLONE_THREAD changes nothing and is refused if there are other threads. Unlike /proc it is always there.
pub(super) fn single_threaded() -> io::Result<()> {
    // SAFETY: an integer argument; with this flag the call only checks.
    let result = unsafe { libc::unshare(libc::CLONE_THREAD) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Ends this process without running anything: no destructors, no exit handlers.
pub(super) fn exit_now(code: i32) -> ! {
    // SAFETY: takes an integer and does not return.
    unsafe { libc::_exit(code) }
}

/// Ignores `signal`, also in the children.
pub(super) fn ignore(signal: Signal) -> io::Result<()> {
    set(signal, SigHandler::SigIgn)
}

/// Undoes whatever the parent of this program chose.
pub(super) fn restore_default(signal: Signal) -> io::Result<()> {
    set(signal, SigHandler::SigDfl)
}

fn set(signal: Signal, handler: SigHandler) -> io::Result<()> {
    let action = SigAction::new(handler, SaFlags::empty(), SigSet::empty());
    // SAFETY: SIG_IGN and SIG_DFL run no code of this process.
    unsafe { sigaction(signal, &action) }?;
    Ok(())
}
