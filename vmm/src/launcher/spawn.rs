//! weir's side: starting a launcher.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::retry_on_intr;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::channel;

/// A running launcher. Closing `socket` ends it and all its VMs.
#[derive(Debug)]
pub struct LauncherHandle {
    /// For [`super::protocol`]; blocking until its owner says otherwise. End of file: the launcher is gone.
    pub socket: OwnedFd,
    /// Its process.
    pub pid: i32,
    /// Its process, for good: readable once it has ended.
    pub pidfd: OwnedFd,
}

/// A launcher's end, for who has to wait for it.
#[derive(Debug)]
pub struct LauncherEnd(OwnedFd);

impl LauncherHandle {
    /// Its end; after that none of its children lives any more.
    ///
    /// # Errors
    /// No file descriptor.
    pub fn end(&self) -> io::Result<LauncherEnd> {
        Ok(LauncherEnd(self.pidfd.try_clone()?))
    }
}

impl LauncherEnd {
    /// Waits for it, at most `patience`; whether it has come.
    pub fn wait(&self, patience: Duration) -> bool {
        let Ok(patience) = Timespec::try_from(patience) else { return false };
        let mut ended = [PollFd::new(&self.0, PollFlags::IN)];
        matches!(retry_on_intr(|| poll(&mut ended, Some(&patience))), Ok(1))
    }
}

/// Why there is no launcher.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// No file descriptors.
    #[error("make the launcher's socket")]
    Socket(#[source] io::Error),
    /// No thread.
    #[error("start the launcher's thread")]
    Thread(#[source] io::Error),
    /// The program cannot be run.
    #[error("run the launcher")]
    Run(#[source] io::Error),
}

/// Starts `exe launcher`, whose `main` calls [`super::main`]. May be called from any thread, at any time.
///
/// # Errors
/// See [`SpawnError`]. A launcher that runs but cannot confine itself says so on stderr and closes its socket.
pub fn spawn(exe: &Path) -> Result<LauncherHandle, SpawnError> {
    let mut command = Command::new(exe);
    command.arg("launcher");
    spawn_command(command)
}

/// [`spawn`] for a command of the caller's own, which gets its standard input, output and environment set.
///
/// The launcher asks to be killed when its parent dies, and for Linux the parent is the *thread* that forked. So a
/// thread of its own forks, and lives until the launcher has ended, whose status it takes.
///
/// # Errors
/// See [`SpawnError`].
pub fn spawn_command(mut command: Command) -> Result<LauncherHandle, SpawnError> {
    let (socket, theirs) = channel::pair().map_err(SpawnError::Socket)?;
    // The environment may hold secrets, and the launcher's memory is copied into every VM's process.
    command.env_clear().stdin(Stdio::from(theirs)).stdout(Stdio::null());
    let (sender, receiver) = mpsc::channel();
    let parent = move || {
        let spawned = command.spawn();
        // It holds the launcher's end of the socket, which must close when the launcher ends.
        drop(command);
        let mut child = match spawned {
            Ok(child) => child,
            Err(error) => return drop(sender.send(Err(error))),
        };
        let opened = pid_of(&child).and_then(|pid| Ok((pid, pidfd_open(pid, PidfdFlags::empty())?)));
        let failed = opened.is_err();
        if sender.send(opened).is_err() || failed {
            // The socket closes with the caller's error, but do not rely on it.
            let _ = child.kill();
        }
        let _ = child.wait();
    };
    thread::Builder::new().name("launcher-parent".to_owned()).spawn(parent).map_err(SpawnError::Thread)?;
    let (pid, pidfd) = receiver
        .recv()
        .map_err(|_| SpawnError::Run(io::ErrorKind::BrokenPipe.into()))?
        .map_err(SpawnError::Run)?;
    Ok(LauncherHandle { socket, pid: pid.as_raw_nonzero().get(), pidfd })
}

fn pid_of(child: &std::process::Child) -> io::Result<Pid> {
    i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or_else(|| io::ErrorKind::InvalidData.into())
}
