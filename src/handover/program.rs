//! The earlier weir's side.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::retry_on_intr;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use weir_vmm::channel::{self, ChannelError};

use super::{FromEarlier, FromLater, VARIABLE, VERSION};

/// The command that this process is.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    path: PathBuf,
    arguments: Vec<OsString>,
}

/// A weir that is to take this one's place. Killed when dropped, unless it was let go.
#[derive(Debug)]
pub(crate) struct Successor {
    /// `None`: it was let go.
    child: Option<Child>,
}

/// Why it does not take the place.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SuccessorError {
    /// It cannot be told anything.
    #[error("tell the new weir")]
    Tell(#[source] ChannelError),
    /// It says what makes no sense.
    #[error("hear of the new weir")]
    Hear(#[source] ChannelError),
    /// It says something else than is its turn.
    #[error("the new weir says something out of turn")]
    OutOfTurn,
    /// It has ended.
    #[error("the new weir has ended, its log says why")]
    Ended,
}

impl Program {
    /// This process's. To be called while its file is in its place.
    ///
    /// # Errors
    /// If the kernel does not tell.
    pub(crate) fn this() -> io::Result<Self> {
        Ok(Self { path: std::env::current_exe()?, arguments: std::env::args_os().skip(1).collect() })
    }

    /// Where its file is, or another one by now.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Starts whatever is there now, in the namespaces of the calling thread.
    ///
    /// # Errors
    /// If it cannot be started.
    pub(crate) fn start(&self) -> io::Result<(Successor, Conversation)> {
        let (channel, theirs) = channel::pair()?;
        // This end of theirs is closed when the command is dropped, so that its end shows.
        let child = Command::new(&self.path)
            .args(&self.arguments)
            .env(VARIABLE, VERSION)
            .stdin(Stdio::from(theirs))
            .spawn()?;
        Ok((Successor { child: Some(child) }, Conversation(channel)))
    }
}

impl Successor {
    /// Its process.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// It lives on from now on.
    pub(crate) fn let_go(mut self) {
        self.child = None;
    }

    /// Ends it, unless it does so by itself within `patience`, and says how it ended. Blocks for as long as that takes.
    pub(crate) fn end(mut self, patience: Duration) -> String {
        let Some(mut child) = self.child.take() else { return "it was let go".to_owned() };
        wait(&child, patience);
        // It may have ended by itself, and then that is how.
        let _ = child.kill();
        match child.wait() {
            Ok(status) => status.to_string(),
            Err(error) => format!("its status is unknown: {error}"),
        }
    }
}

/// Waits until `child` has ended, at most `patience`.
fn wait(child: &Child, patience: Duration) {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let process = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
    if let (Some(process), Ok(patience)) = (process, Timespec::try_from(patience)) {
        let mut ended = [PollFd::new(&process, PollFlags::IN)];
        // What it comes to is seen when it is killed and its status taken.
        let _ = retry_on_intr(|| poll(&mut ended, Some(&patience)));
    }
}

impl Drop for Successor {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // Whoever inherits it takes its status.
            let _ = child.kill();
        }
    }
}

/// What is said between the two. All of it blocks, and fails at the latest when the successor is killed.
#[derive(Debug)]
pub(crate) struct Conversation(pub(super) OwnedFd);

impl Conversation {
    /// Hands a socket over.
    ///
    /// # Errors
    /// If it does not listen.
    pub(crate) fn hand(
        &self,
        admin: bool,
        address: String,
        socket: BorrowedFd<'_>,
    ) -> Result<(), SuccessorError> {
        self.tell(&FromEarlier::Socket { admin, address }, &[socket])
    }

    /// Those were all sockets; waits until it could accept.
    ///
    /// # Errors
    /// If it never will.
    pub(crate) fn prepare(&self) -> Result<(), SuccessorError> {
        self.tell(&FromEarlier::Complete, &[])?;
        self.expect(&FromLater::Prepared)
    }

    /// Has it accept, and waits until it does.
    ///
    /// # Errors
    /// If it does not.
    pub(crate) fn accept(&self) -> Result<(), SuccessorError> {
        self.tell(&FromEarlier::Accept, &[])?;
        self.expect(&FromLater::Serving)
    }

    fn tell(&self, what: &FromEarlier, files: &[BorrowedFd<'_>]) -> Result<(), SuccessorError> {
        channel::send(self.0.as_fd(), what, files).map_err(SuccessorError::Tell)
    }

    fn expect(&self, turn: &FromLater) -> Result<(), SuccessorError> {
        match channel::recv::<FromLater>(self.0.as_fd()) {
            Ok(Some((said, _))) if said == *turn => Ok(()),
            Ok(Some(_)) => Err(SuccessorError::OutOfTurn),
            Ok(None) => Err(SuccessorError::Ended),
            Err(error) => Err(SuccessorError::Hear(error)),
        }
    }
}
