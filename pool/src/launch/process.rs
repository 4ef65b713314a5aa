//! One VM's process, held by its control socket and its pidfd.
//!
//! ```text
//!  talking --last word, or end of the socket--> ending (killed) --pidfd readable--> gone
//!     |                                                               ^
//!     +------------------------- pidfd readable: hear the rest -------+
//! ```
//!
//! The process may be in a hostile guest's hands, so nothing that it says proves that it is gone: only the kernel's
//! pidfd does. What the VM borrowed (its TAP) is kept until then, even if the handle is dropped before.

use std::any::Any;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt};
use rustix::process::{Signal, pidfd_send_signal};
use tokio::io::unix::AsyncFd;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::timeout;
use weir_vmm::channel::ChannelError;
use weir_vmm::{ExitReason, VmCommand, VmEvent};

use super::socket::{Socket, watch};
use crate::launcher::{StartKind, VmProcess};

/// How long to wait for the launcher to say how a process ended that is gone already.
const STATUS: Duration = Duration::from_secs(1);

/// What a VM uses until it is gone.
pub(super) type Borrowed = Box<dyn Any + Send>;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Process {
    address: SocketAddr,
    control: Socket,
    /// `None` once the process is gone.
    alive: Option<Alive>,
    status: oneshot::Receiver<String>,
    talking: bool,
    last_word: Option<ExitReason>,
}

#[derive(Debug)]
struct Alive {
    pidfd: AsyncFd<OwnedFd>,
    borrowed: Borrowed,
}

impl Process {
    /// The process behind `pidfd`, whose end the launcher will tell through `status`. On failure it is killed.
    pub(super) fn new(
        address: SocketAddr,
        control: Socket,
        pidfd: OwnedFd,
        status: oneshot::Receiver<String>,
        borrowed: Borrowed,
    ) -> io::Result<Self> {
        let pidfd = watch(pidfd)?;
        let alive = Some(Alive { pidfd, borrowed });
        Ok(Self { address, control, alive, status, talking: true, last_word: None })
    }

    async fn next(&mut self) -> VmEvent {
        while self.talking {
            let heard = match &self.alive {
                Some(alive) => tokio::select! {
                    biased;
                    heard = self.control.receive() => heard,
                    () = ended(&alive.pidfd) => {
                        self.gone();
                        continue;
                    }
                },
                None => self.control.receive_now(),
            };
            if let Some(event) = self.hear(heard) {
                return event;
            }
        }
        self.kill();
        if let Some(alive) = &self.alive {
            ended(&alive.pidfd).await;
            self.gone();
        }
        VmEvent::Exit(self.reason().await)
    }

    /// What the message means to others, if anything.
    fn hear(&mut self, heard: Result<Option<(VmEvent, Vec<OwnedFd>)>, ChannelError>) -> Option<VmEvent> {
        match heard {
            Ok(Some((VmEvent::Exit(reason), _))) => {
                self.last_word = Some(reason);
                self.talking = false;
                None
            }
            Ok(Some((event, _))) => Some(event),
            Ok(None) => {
                self.talking = false;
                None
            }
            Err(error) => {
                // What a dead process left unread is all there will be.
                if !error.would_block() {
                    self.last_word = Some(ExitReason::Died(format!("control socket: {error}")));
                }
                self.talking = false;
                None
            }
        }
    }

    /// The kernel says so.
    fn gone(&mut self) {
        if let Some(alive) = self.alive.take() {
            give_back(alive.borrowed);
        }
    }

    async fn reason(&mut self) -> ExitReason {
        if let Some(reason) = self.last_word.take() {
            return reason;
        }
        match timeout(STATUS, &mut self.status).await {
            Ok(Ok(status)) => ExitReason::Died(status),
            Ok(Err(_)) => ExitReason::Died("with its launcher".to_owned()),
            Err(_) => ExitReason::Died("in a way its launcher does not tell".to_owned()),
        }
    }
}

impl VmProcess for Process {
    fn address(&self) -> SocketAddr {
        self.address
    }

    fn kind(&self) -> StartKind {
        StartKind::Cold
    }

    fn next_event(&mut self) -> BoxFuture<'_, VmEvent> {
        self.next().boxed()
    }

    fn reset(&self) {
        // As for `stop`: the answer does not come, and the process will be killed.
        let _ = self.control.send_now(&VmCommand::Reset);
    }

    fn stop(&self) {
        // If it does not get there, the process is as good as gone, or stuck and will be killed.
        let _ = self.control.send_now(&VmCommand::Stop);
    }

    fn kill(&self) {
        if let Some(alive) = &self.alive {
            // Fails only if it has ended already.
            let _ = pidfd_send_signal(&alive.pidfd, Signal::KILL);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        let Some(Alive { pidfd, borrowed }) = self.alive.take() else { return };
        // Without a runtime weir itself is ending, and no other VM will get what this one borrowed.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move {
                ended(&pidfd).await;
                give_back(borrowed);
            });
        }
    }
}

/// Cancel-safe.
async fn ended(pidfd: &AsyncFd<OwnedFd>) {
    // An error means that the runtime is ending, and with it everybody who waits here.
    let _ = pidfd.readable().await;
}

/// Recycling a TAP takes system calls enough to be in the way of others here.
pub(super) fn give_back(borrowed: Borrowed) {
    match Handle::try_current() {
        Ok(runtime) => drop(runtime.spawn_blocking(move || drop(borrowed))),
        Err(_) => drop(borrowed),
    }
}
