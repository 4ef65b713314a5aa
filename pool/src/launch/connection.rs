//! One launcher, as long as it lives.
//!
//! ```text
//!  start --Start(spec, fds)--> unborn --Started(pidfd)--> Process --Exited(status)--> forgotten
//!                                |  \
//!                          Failed|   \ launcher dies
//!                                v    v
//!                            (error) orphan: when the control socket ends, the kernel has killed it
//! ```
//!
//! What the VM borrows waits here while its process is being made, not in the future of who asked for it: that may
//! be dropped at any time, while the process comes into being all the same.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use parking_lot::Mutex;
use tokio::sync::oneshot;
use weir_vmm::launcher::protocol::{LauncherReply, LauncherRequest};
use weir_vmm::{VmCommand, VmEvent, VmId, VmSpec, channel};

use super::process::{Borrowed, Process, give_back};
use super::socket::Socket;
use crate::launcher::StartError;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Connection {
    socket: Socket,
    vms: Mutex<Vms>,
}

/// What is known of the launcher's children.
#[derive(Debug, Default)]
struct Vms {
    unborn: HashMap<VmId, Unborn>,
    /// Who wants to know how a process ended.
    born: HashMap<VmId, oneshot::Sender<String>>,
    /// The launcher is gone: nothing more will be said.
    closed: bool,
}

/// A VM without a process yet.
#[derive(Debug)]
struct Unborn {
    reply: oneshot::Sender<Result<Process, StartError>>,
    address: SocketAddr,
    control: Socket,
    borrowed: Borrowed,
}

/// Takes the expectation back unless the request was sent, also when the sender gives up.
struct Unsent<'a> {
    connection: &'a Connection,
    id: VmId,
    sent: bool,
}

impl Drop for Unsent<'_> {
    fn drop(&mut self) {
        if self.sent {
            return;
        }
        let unborn = self.connection.vms.lock().unborn.remove(&self.id);
        unborn.into_iter().for_each(|unborn| give_back(unborn.borrowed));
    }
}

impl Connection {
    /// To the launcher at the other end of `socket`. Inside a tokio runtime.
    pub(super) fn new(socket: OwnedFd) -> io::Result<Self> {
        Ok(Self { socket: Socket::new(socket)?, vms: Mutex::default() })
    }

    /// Starts a VM that will listen at `address`. `borrowed` is given back when its process is gone or never was.
    pub(super) async fn start(
        &self,
        spec: VmSpec,
        address: SocketAddr,
        image: BorrowedFd<'_>,
        tap: Option<OwnedFd>,
        borrowed: Borrowed,
    ) -> Result<Process, StartError> {
        let prepare = |source: io::Error| StartError::Prepare {
            what: "make the vm's control socket".to_owned(),
            source: source.into(),
        };
        let id = spec.id;
        let (ours, theirs) = channel::pair().map_err(prepare)?;
        let control = Socket::new(ours).map_err(prepare)?;
        let (reply, answer) = oneshot::channel();
        let mut unsent = self.expect(id, Unborn { reply, address, control, borrowed })?;
        let files: Vec<_> =
            [image, theirs.as_fd()].into_iter().chain(tap.as_ref().map(AsFd::as_fd)).collect();
        let request = LauncherRequest::Start(Box::new(spec));
        self.socket.send(&request, &files).await.map_err(|error| match error.is_message() {
            true => {
                StartError::Prepare { what: "describe the vm to the launcher".into(), source: error.into() }
            }
            false => StartError::LauncherDied,
        })?;
        unsent.sent = true;
        drop((unsent, theirs, tap));
        answer.await.unwrap_or(Err(StartError::LauncherDied))
    }

    fn expect(&self, id: VmId, unborn: Unborn) -> Result<Unsent<'_>, StartError> {
        let mut vms = self.vms.lock();
        if vms.closed {
            return Err(StartError::LauncherDied);
        }
        vms.unborn.insert(id, unborn);
        Ok(Unsent { connection: self, id, sent: false })
    }

    /// Hears the launcher out, until it is gone or talks nonsense.
    pub(super) async fn serve(&self) {
        loop {
            match self.socket.receive().await {
                Ok(Some((reply, files))) => self.hear(reply, files),
                Ok(None) => break,
                Err(error) => {
                    tracing::error!(%error, "launcher talks nonsense");
                    break;
                }
            }
        }
        self.close();
    }

    fn hear(&self, reply: LauncherReply, files: Vec<OwnedFd>) {
        match reply {
            LauncherReply::Started { id, pid } => self.started(id, pid, files),
            LauncherReply::Failed { id, error } => {
                if let Some(unborn) = self.vms.lock().unborn.remove(&id) {
                    give_back(unborn.borrowed);
                    // Who asked may have given up.
                    let _ = unborn.reply.send(Err(StartError::Refused(error)));
                }
            }
            LauncherReply::Exited { id, status } => {
                tracing::debug!(vm = %id, status, "vm process reaped");
                if let Some(wants) = self.vms.lock().born.remove(&id) {
                    let _ = wants.send(status);
                }
            }
        }
    }

    fn started(&self, id: VmId, pid: i32, files: Vec<OwnedFd>) {
        let (tell, status) = oneshot::channel();
        let unborn = {
            let mut vms = self.vms.lock();
            vms.born.insert(id, tell);
            vms.unborn.remove(&id)
        };
        let Some(Unborn { reply, address, control, borrowed }) = unborn else {
            tracing::error!(vm = %id, pid, "launcher started what nobody ordered");
            return;
        };
        let Some(pidfd) = files.into_iter().next() else {
            tracing::error!(vm = %id, pid, "no descriptor left for a vm's process");
            let lost = StartError::Prepare {
                what: "take the pidfd of the vm".into(),
                source: "out of file descriptors".into(),
            };
            // Who asked may have given up.
            let _ = reply.send(Err(lost));
            tokio::spawn(unwatched(control, status, borrowed));
            return;
        };
        tracing::debug!(vm = %id, pid, "vm process started");
        let process = Process::new(address, control, pidfd, status, borrowed).map_err(|source| {
            StartError::Prepare { what: "watch the vm's process".to_owned(), source: source.into() }
        });
        // Dropped by who has given up, it is killed.
        drop(reply.send(process));
    }

    /// The launcher is gone, and the kernel kills its children.
    fn close(&self) {
        let unborn = {
            let mut vms = self.vms.lock();
            vms.closed = true;
            vms.born.clear();
            std::mem::take(&mut vms.unborn)
        };
        for Unborn { reply, control, borrowed, .. } in unborn.into_values() {
            let _ = reply.send(Err(StartError::LauncherDied));
            tokio::spawn(orphan(control, borrowed));
        }
    }
}

/// A process that runs, but that nobody can watch or kill for want of its pidfd. It is asked to end; what it borrowed is
/// given back only when the launcher has reaped it, or is gone itself.
async fn unwatched(control: Socket, status: oneshot::Receiver<String>, borrowed: Borrowed) {
    // Where that fails the process has ended.
    let _ = control.send_now(&VmCommand::Stop);
    if status.await.is_ok() {
        give_back(borrowed);
    } else {
        orphan(control, borrowed).await;
    }
}

/// A process that may have been made without anybody having its pidfd: its control socket ends with it.
async fn orphan(control: Socket, borrowed: Borrowed) {
    while let Ok(Some(_)) = control.receive::<VmEvent>().await {}
    give_back(borrowed);
}
