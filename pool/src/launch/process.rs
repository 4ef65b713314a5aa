//! One VM's process, held by its control socket and its pidfd.
//!
//! ```text
//!  talking --last word, end of the socket, no limits--> ending (killed) --pidfd readable--> gone
//!     |                                                                         ^
//!     +----------------------------- pidfd readable: hear the rest -------------+
//! ```
//!
//! The process may be in a hostile guest's hands, so nothing that it says proves that it is gone: only the kernel's
//! pidfd does. What the VM borrowed (its TAP) is kept until then, even if the handle is dropped before.

use std::any::Any;
use std::net::SocketAddr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::timeout;
use weir_config::model::Pool;
use weir_vmm::channel::ChannelError;
use weir_vmm::{ExitReason, VmCommand, VmEvent};

use super::child::{Child, Pidfd};
use super::group::Group;
use super::socket::Socket;
use crate::launcher::{StartKind, VmProcess};

/// How long to wait for the launcher to say how a process ended that is gone already.
const STATUS: Duration = Duration::from_secs(1);

/// What a VM uses until it is gone.
pub(super) type Borrowed = Box<dyn Any + Send + Sync>;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Process {
    address: SocketAddr,
    kind: StartKind,
    control: Socket,
    /// `None` once the process is gone.
    alive: Option<Alive>,
    status: oneshot::Receiver<String>,
    talking: bool,
    /// READY was heard and is still to be told.
    ready: bool,
    last_word: Option<ExitReason>,
    without_limits: bool,
    without_launcher: bool,
}

#[derive(Debug)]
struct Alive {
    process: Pidfd,
    group: Option<Group>,
    borrowed: Borrowed,
}

impl Process {
    /// `child` as the VM that it was told to become, which listens at `address`.
    pub(super) fn new(address: SocketAddr, child: Child, kind: StartKind, borrowed: Borrowed) -> Self {
        let Child { control, process, group, status, .. } = child;
        let alive = Some(Alive { process, group, borrowed });
        Self {
            address,
            kind,
            control,
            alive,
            status,
            talking: true,
            ready: false,
            last_word: None,
            without_limits: false,
            without_launcher: false,
        }
    }

    /// Holds its process to the limits of `pool`.
    pub(super) fn limit(&self, pool: &Pool) {
        if let Some(Alive { process, group: Some(group), .. }) = &self.alive {
            group.limit(process, pool);
        }
    }

    /// Whether it had to end because it could not be held to its limits, which is nobody's fault but the host's.
    pub(super) fn is_without_limits(&self) -> bool {
        self.without_limits
    }

    /// Whether it ended with its launcher.
    pub(super) fn is_without_launcher(&self) -> bool {
        self.without_launcher
    }

    /// Sends its first command, which makes it what it is.
    pub(super) async fn send(
        &self,
        command: &VmCommand,
        files: &[BorrowedFd<'_>],
    ) -> Result<(), ChannelError> {
        self.control.send(command, files).await
    }

    /// Waits until the VM is READY or will never be; the reason then.
    pub(super) async fn until_ready(&mut self) -> Result<(), ExitReason> {
        loop {
            match self.next().await {
                VmEvent::Ready => {
                    self.ready = true;
                    return Ok(());
                }
                VmEvent::Exit(reason) => return Err(reason),
                VmEvent::Log(_) | VmEvent::Frozen(_) | VmEvent::Report { .. } => {}
            }
        }
    }

    async fn next(&mut self) -> VmEvent {
        if std::mem::take(&mut self.ready) {
            return VmEvent::Ready;
        }
        while self.talking {
            let heard = match &self.alive {
                Some(alive) => tokio::select! {
                    biased;
                    // First, so that nothing that it says keeps it from being killed.
                    why = alive.not_held() => {
                        self.last_word = Some(ExitReason::Host(format!("its limits cannot be set: {why}")));
                        (self.talking, self.without_limits) = (false, true);
                        continue;
                    }
                    heard = self.control.receive() => heard,
                    () = alive.process.ended() => {
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
            alive.process.ended().await;
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
            give_back(Box::new((alive.borrowed, alive.group)));
        }
    }

    async fn reason(&mut self) -> ExitReason {
        if let Some(reason) = self.last_word.take() {
            return reason;
        }
        match timeout(STATUS, &mut self.status).await {
            Ok(Ok(status)) => ExitReason::Died(status),
            Ok(Err(_)) => {
                self.without_launcher = true;
                ExitReason::Died("with its launcher".to_owned())
            }
            Err(_) => ExitReason::Died("in a way its launcher does not tell".to_owned()),
        }
    }
}

impl Alive {
    /// Resolves when its group does not hold it.
    async fn not_held(&self) -> String {
        match &self.group {
            Some(group) => group.failed().await,
            None => std::future::pending().await,
        }
    }
}

impl VmProcess for Process {
    fn address(&self) -> SocketAddr {
        self.address
    }

    fn next_event(&mut self) -> BoxFuture<'_, VmEvent> {
        self.next().boxed()
    }

    fn reset(&self) {
        // As for `stop`: the answer does not come, and the process will be killed.
        let _ = self.control.send_now(&VmCommand::Reset);
    }

    fn report(&self) {
        // As for `stop`: the answer does not come, which says something as well.
        let _ = self.control.send_now(&VmCommand::Report);
    }

    fn stop(&self) {
        // If it does not get there, the process is as good as gone, or stuck and will be killed.
        let _ = self.control.send_now(&VmCommand::Stop);
    }

    fn kill(&self) {
        if let Some(alive) = &self.alive {
            alive.process.kill();
        }
    }

    fn kind(&self) -> StartKind {
        self.kind
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let Some(Alive { process, group, borrowed }) = self.alive.take() else { return };
        process.kill();
        // Without a runtime weir itself is ending, and no other VM will get what this one borrowed.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move {
                process.ended().await;
                give_back(Box::new((borrowed, group)));
            });
        }
    }
}

/// Recycling a TAP takes system calls enough to be in the way of others here.
pub(super) fn give_back(borrowed: Borrowed) {
    match Handle::try_current() {
        Ok(runtime) => drop(runtime.spawn_blocking(move || drop(borrowed))),
        Err(_) => drop(borrowed),
    }
}
