//! A jailed process that does not know yet what VM it will be.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::process::{Signal, pidfd_send_signal};
use tokio::io::unix::AsyncFd;
use tokio::sync::oneshot;
use tokio::time::timeout;
use weir_vmm::{VmCommand, VmEvent};

use super::group::Group;
use super::socket::{Socket, watch};

/// How long a process may take to answer that has nothing else to do.
const ANSWER: Duration = Duration::from_secs(1);

/// See the module's documentation. Dropping it kills the process.
#[derive(Debug)]
pub(super) struct Child {
    pub(super) control: Socket,
    pub(super) process: Pidfd,
    /// As the launcher's pid namespace sees it.
    pub(super) pid: i32,
    /// Behind the process: it is empty when it goes.
    pub(super) group: Option<Group>,
    /// How it ended, from the launcher.
    pub(super) status: oneshot::Receiver<String>,
}

/// A process that ends with its owner.
#[derive(Debug)]
pub(super) struct Pidfd(AsyncFd<OwnedFd>);

impl Child {
    /// Whether it still waits for its order.
    ///
    /// # Errors
    /// What it said before it ended, for it could not make a VM; or why its group does not hold it.
    pub(super) fn is_waiting(&self) -> Result<(), String> {
        if let Some(failure) = self.group.as_ref().and_then(Group::failure) {
            return Err(failure);
        }
        match self.control.receive_now::<VmEvent>() {
            Err(error) if error.would_block() => Ok(()),
            Ok(Some((VmEvent::Exit(reason), _))) => Err(reason.to_string()),
            Ok(Some(_)) => Err("it speaks before it is anything".to_owned()),
            Ok(None) => Err("it is gone".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }
}

impl Child {
    /// Whether it answers, and does not only exist: it may have been stopped.
    ///
    /// # Errors
    /// As [`Self::is_waiting`].
    pub(super) async fn is_awake(&self) -> Result<bool, String> {
        let answer = async {
            // What it said before it ended is still there to be received.
            let _ = self.control.send(&VmCommand::Report, &[]).await;
            self.control.receive::<VmEvent>().await
        };
        match timeout(ANSWER, answer).await {
            Ok(Ok(Some((VmEvent::Report { .. }, _)))) => Ok(true),
            Ok(Ok(Some((VmEvent::Exit(reason), _)))) => Err(reason.to_string()),
            Ok(Ok(Some(_))) => Err("it speaks before it is anything".to_owned()),
            Ok(Ok(None)) => Err("it is gone".to_owned()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Ok(false),
        }
    }
}

impl Pidfd {
    /// Inside a tokio runtime.
    pub(super) fn new(pidfd: OwnedFd) -> io::Result<Self> {
        Ok(Self(watch(pidfd)?))
    }

    /// Another descriptor of it.
    pub(super) fn duplicate(&self) -> io::Result<OwnedFd> {
        self.0.get_ref().try_clone()
    }

    /// Ends the process whether it agrees or not.
    pub(super) fn kill(&self) {
        // Fails only if it has ended already.
        let _ = pidfd_send_signal(&self.0, Signal::KILL);
    }

    /// Resolves when it has ended. Cancel-safe.
    pub(super) async fn ended(&self) {
        // An error means that the runtime is ending, and with it everybody who waits here.
        let _ = self.0.readable().await;
    }
}

impl Drop for Pidfd {
    fn drop(&mut self) {
        self.kill();
    }
}
