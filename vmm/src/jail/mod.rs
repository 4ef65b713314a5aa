//! What keeps a VM's process from everything but its VM.
//!
//! A guest that breaks out of its virtual machine into the process that emulates its devices finds: no file system,
//! no network, no other process, no privilege, and almost no system calls. Each layer is a function of its own and
//! is tested alone, so that no layer hides a hole in another.
//!
//! ```text
//! launcher   namespaces (mount, ipc, uts, net) and an empty read-only root      root
//! clone3     pid, mount, ipc, uts namespaces of its own                         launcher::sys
//! child      session, null streams ─> rlimits ─> bounding set, securebits ─> user and groups
//!            ─> all capability sets ─> death signal ─> file descriptors ─> not dumpable
//!            ─> no_new_privs ─> seccomp ─> the VM                               enter
//! ```
//!
//! The order matters: the bounding set and the user need capabilities; a change of user forgets the death signal;
//! seccomp forbids all the others.
//!
//! All VM processes of a launcher share its address-space layout, as forked processes do. A launcher is restarted
//! with weir, and a VM that leaks its layout gains nothing for entering another one.

pub mod doctor;
pub mod identity;
mod ioctls;
pub mod limits;
mod privileges;
pub mod root;
pub mod seccomp;
#[allow(unsafe_code)]
pub(crate) mod sys;

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{
    DumpableBehavior, Signal, set_dumpable_behavior, set_parent_process_death_signal, setsid,
};
use rustix::thread::set_no_new_privs;

pub use doctor::doctor;
pub use identity::{Identity, Users};
pub use seccompiler::BpfProgram;

/// Which layer could not be put on.
#[derive(Debug, thiserror::Error)]
#[error("jail: {layer}")]
pub struct JailError {
    /// What was being done.
    pub layer: &'static str,
    /// Why it failed.
    #[source]
    pub source: io::Error,
}

/// For `map_err`: names the layer.
pub(crate) fn layer<E: Into<io::Error>>(layer: &'static str) -> impl FnOnce(E) -> JailError {
    move |source| JailError { layer, source: source.into() }
}

/// One VM process's jail.
#[derive(Debug)]
pub struct JailSpec<'a> {
    /// /dev/null, opened while there was one: becomes the three standard streams.
    pub null: BorrowedFd<'a>,
    /// File descriptors that stay open beside the standard streams.
    pub keep: &'a [RawFd],
    /// Who to become.
    pub identity: Identity,
    /// Whether to drop supplementary groups ([`Users::set_groups`]).
    pub set_groups: bool,
    /// The launcher's pidfd: its death must be this process's.
    pub launcher: BorrowedFd<'a>,
    /// The system calls that stay allowed; `None` leaves this layer off, for tests of the other layers.
    pub filter: Option<&'a BpfProgram>,
}

/// Puts on all layers, for good. The caller is the only thread of a child that was just forked, and never returns
/// into code that owns a file descriptor outside of `keep`.
///
/// # Errors
/// A layer failed. The process is then half jailed and must end.
pub fn enter(spec: &JailSpec<'_>) -> Result<(), JailError> {
    setsid().map_err(layer("start a session"))?;
    null_streams(spec.null)?;
    limits::apply(spec.identity)?;
    privileges::forbid_gain()?;
    identity::assume(spec.identity, spec.set_groups)?;
    privileges::drop_all()?;
    die_with(spec.launcher)?;
    sys::close_all_but(spec.keep).map_err(layer("close file descriptors"))?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(layer("forbid dumps"))?;
    set_no_new_privs(true).map_err(layer("set no_new_privs"))?;
    match spec.filter {
        Some(filter) => seccomp::apply(filter),
        None => Ok(()),
    }
}

fn null_streams(null: BorrowedFd<'_>) -> Result<(), JailError> {
    debug_assert!(null.as_raw_fd() > 2);
    rustix::stdio::dup2_stdin(null).map_err(layer("replace stdin"))?;
    rustix::stdio::dup2_stdout(null).map_err(layer("replace stdout"))?;
    rustix::stdio::dup2_stderr(null).map_err(layer("replace stderr"))
}

/// Asks for SIGKILL when the launcher dies. It may have died before that, and a process that is the first of its pid
/// namespace cannot tell by getppid (always 0): so look at its pidfd.
fn die_with(launcher: BorrowedFd<'_>) -> Result<(), JailError> {
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(layer("set the death signal"))?;
    let mut fds = [PollFd::from_borrowed_fd(launcher, PollFlags::IN)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    match poll(&mut fds, Some(&now)).map_err(layer("look for the launcher"))? {
        0 => Ok(()),
        _ => Err(layer("look for the launcher")(io::Error::from(io::ErrorKind::NotConnected))),
    }
}
