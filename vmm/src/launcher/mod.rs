//! The launcher: a tiny single-threaded process that forks one jailed process per VM.
//!
//! It exists because a process with threads cannot safely fork, and because what is forked should start from a
//! process that has no secrets: the launcher is an exec of weir's own program that has read nothing but VM specs.
//!
//! ```text
//!  weir ──spawn──> main ──confine──> serving ──socket closed──> killing ──all reaped──> gone
//!                                     │    ▲
//!                    Start(spec, fds) │    │ Started(pidfd) | Failed        SIGKILL of the launcher at any time:
//!                                     ▼    │                                the kernel kills every child
//!                                    fork ─┘
//!                                     └─> child: jail ─> Body ─> last word ─> exit ─> Exited
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
use std::process::ExitCode;

use rustix::net::{SocketType, sockopt::socket_type};

pub use child::{Body, Inherited};
pub use spawn::{LauncherHandle, SpawnError, spawn, spawn_command};

use crate::jail::{BpfProgram, seccomp};
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
    /// The real thing, around `body`. Without /dev/kvm it still serves, so that each start says what is missing.
    ///
    /// # Errors
    /// The system call filter cannot be made: a bug.
    pub fn new(body: Body) -> io::Result<Self> {
        Ok(Self {
            kvm: confine::open_kvm(),
            body,
            filter: Some(seccomp::compile().map_err(io::Error::other)?),
        })
    }
}

/// The body of a launcher's program: confines this process and serves the socket that is its standard input until
/// it closes. Call it before anything starts a thread.
pub fn run(setup: Setup) -> ExitCode {
    let socket = match inherited_socket() {
        Ok(socket) => socket,
        Err(error) => {
            eprintln!(
                "launcher: standard input is no launcher socket ({error}); `weir serve` starts the launcher"
            );
            return ExitCode::from(2);
        }
    };
    let mut keep = vec![&socket];
    keep.extend(setup.kvm.as_ref());
    let confined = match confine::enter(&keep) {
        Ok(confined) => confined,
        Err(error) => {
            eprintln!("launcher: {}", child::with_sources(&error));
            return ExitCode::FAILURE;
        }
    };
    match Server::new(socket, setup, confined).and_then(Server::run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("launcher: {}", child::with_sources(&error));
            ExitCode::FAILURE
        }
    }
}

fn inherited_socket() -> io::Result<OwnedFd> {
    let stdin = io::stdin();
    match socket_type(stdin.as_fd())? {
        SocketType::SEQPACKET => stdin.as_fd().try_clone_to_owned(),
        _ => Err(io::ErrorKind::InvalidInput.into()),
    }
}
