//! The launcher's own confinement, which its children inherit as their starting point.

use std::os::fd::{AsRawFd, OwnedFd};

use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::Signal;
use rustix::fs::{Mode, OFlags, open};
use rustix::process::{
    DumpableBehavior, PidfdFlags, Resource, Rlimit, getpid, getrlimit, pidfd_open, set_dumpable_behavior,
    set_parent_process_death_signal, setrlimit, setsid,
};
use rustix::thread::{set_name, set_no_new_privs};

use super::sys;
use crate::jail::{self, JailError, Users, layer};

/// What must be taken along before the file system goes.
pub(super) struct Confined {
    /// /dev/null.
    pub(super) null: OwnedFd,
    /// This process, for the children to see whether it lives.
    pub(super) own: OwnedFd,
    /// The users that children may have.
    pub(super) users: Users,
}

/// Leaves the terminal's signals, the file system, the network and every file descriptor but `keep` and the
/// standard streams. Stdin and stdout become /dev/null; stderr stays, for messages of the launcher itself.
pub(super) fn enter(keep: &[&OwnedFd]) -> Result<Confined, JailError> {
    sys::single_threaded().map_err(layer("run single-threaded"))?;
    leave_terminal()?;
    set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
        .map_err(layer("set the death signal"))?;
    let users = Users::detect().map_err(layer("read the user namespace"))?;
    let null =
        open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).map_err(layer("open /dev/null"))?;
    let own = pidfd_open(getpid(), PidfdFlags::empty()).map_err(layer("open own pidfd"))?;
    rustix::stdio::dup2_stdin(&null).map_err(layer("replace stdin"))?;
    rustix::stdio::dup2_stdout(&null).map_err(layer("replace stdout"))?;
    let keep: Vec<_> = keep.iter().copied().chain([&null, &own]).map(AsRawFd::as_raw_fd).collect();
    jail::sys::close_all_but(&keep).map_err(layer("close file descriptors"))?;
    raise_file_limit()?;

    let namespaces = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWNET;
    unshare(namespaces).map_err(layer("enter namespaces of its own"))?;
    jail::root::enter_empty()?;
    set_no_new_privs(true).map_err(layer("set no_new_privs"))?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(layer("forbid dumps"))?;
    set_name(c"weir-launcher").map_err(layer("set its name"))?;
    Ok(Confined { null, own, users })
}

/// A signal to weir's whole process group (ctrl-C, a service manager) is for weir alone, which then drains its VMs.
fn leave_terminal() -> Result<(), JailError> {
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT] {
        sys::ignore(signal).map_err(layer("ignore signals"))?;
    }
    // Inherited as ignored, it would let children vanish without a status.
    sys::restore_default(Signal::SIGCHLD).map_err(layer("restore SIGCHLD"))?;
    match setsid() {
        Ok(_) | Err(rustix::io::Errno::PERM) => Ok(()),
        Err(error) => Err(layer("start a session")(error)),
    }
}

/// One pidfd per VM, besides those in flight.
fn raise_file_limit() -> Result<(), JailError> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).map_err(layer("raise the file limit"))
}
