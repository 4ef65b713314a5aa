//! The launcher: a tiny single-threaded process that forks one jailed process per VM.
//!
//! It exists because a process with threads cannot safely fork, and because what is forked should start from a
//! process that has no secrets: the launcher is an exec of weir's own program that reads nothing but orders to fork.
//!
//! ```text
//!  weir ──spawn──> main ──confine──> serving ──socket closed──> killing ──all reaped──> gone
//!                                     │    ▲
//!                    Fork(control fd) │    │ Forked(pidfd) | Failed         SIGKILL of the launcher at any time:
//!                                     ▼    │                                the kernel kills every child
//!                                    fork ─┘
//!                                     └─> child: jail ─> blank VM ─> weir's order ─> VM ─> last word ─> exit ─> Exited
//! ```
//!
//! [`spawn`] is weir's side, [`main`] the launcher's.

mod child;
mod confine;
pub mod protocol;
mod server;
mod slots;
mod spawn;
mod status;
#[allow(unsafe_code)]
mod sys;

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::net::{SocketType, sockopt::socket_type};

pub use child::{Body, Inherited};
pub use spawn::{LauncherEnd, LauncherHandle, SpawnError, spawn, spawn_command};

use crate::jail::{BpfProgram, JailError, seccomp};
use crate::kvm;
use seccompiler::BackendError;
use server::Server;

/// What a launcher's children are made of.
pub struct Setup {
    /// /dev/kvm, or the answer to every request for a VM.
    pub kvm: Result<OwnedFd, String>,
    /// What a child runs.
    pub body: Body,
    /// The system calls it may use; `None` leaves seccomp off, for tests of the other layers.
    pub filter: Option<BpfProgram>,
}

impl Setup {
    /// The real thing. Without /dev/kvm it still serves, so that each start says what is missing.
    ///
    /// # Errors
    /// The system call filter cannot be made: a bug.
    pub fn new() -> Result<Self, BackendError> {
        let kvm = kvm::open().map_err(|error| crate::message(&error));
        Ok(Self { kvm, body: child::run_machine, filter: Some(seccomp::compile()?) })
    }
}

/// [`run`] with the real [`Setup`]: the whole of `weir launcher`.
pub fn main() -> ! {
    match Setup::new() {
        Ok(setup) => run(setup),
        Err(error) => end(Err(LauncherError::Filter(error))),
    }
}

/// A launcher's program: confines this process, serves the socket that is its standard input until that closes, and
/// exits. It closes every file descriptor that it does not know, so it never returns to anyone who might own one.
/// Call it before anything starts a thread.
pub fn run(setup: Setup) -> ! {
    end(serve(setup))
}

fn end(result: Result<(), LauncherError>) -> ! {
    let code = match result {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("launcher: {}", crate::message(&error));
            1
        }
    };
    sys::exit_now(code)
}

/// Why a launcher ends other than by weir's end.
#[derive(Debug, thiserror::Error)]
enum LauncherError {
    #[error("standard input is no launcher socket: `weir serve` starts the launcher")]
    Socket(#[source] io::Error),
    #[error("compile the system call filter")]
    Filter(#[source] BackendError),
    #[error("confine the launcher")]
    Confine(#[source] JailError),
    #[error("serve")]
    Serve(#[source] server::ServeError),
}

fn serve(setup: Setup) -> Result<(), LauncherError> {
    let socket = inherited_socket().map_err(LauncherError::Socket)?;
    let mut keep = vec![&socket];
    keep.extend(setup.kvm.as_ref());
    let confined = confine::enter(&keep).map_err(LauncherError::Confine)?;
    Server::new(socket, setup, confined).and_then(Server::run).map_err(LauncherError::Serve)
}

fn inherited_socket() -> io::Result<OwnedFd> {
    let stdin = io::stdin();
    match socket_type(stdin.as_fd())? {
        SocketType::SEQPACKET => stdin.as_fd().try_clone_to_owned(),
        _ => Err(io::ErrorKind::InvalidInput.into()),
    }
}
