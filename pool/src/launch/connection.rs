//! One launcher, as long as it lives.
//!
//! ```text
//!  fork --Fork(control fd)--> unborn --Forked(pidfd)--> Child --Exited(status)--> forgotten
//!                              |  \
//!                        Failed|   \ launcher dies, and the kernel kills its children
//!                              v    v
//!                            (error)
//! ```
//!
//! A launcher that does not answer a request within [`ANSWER`] is stuck, or stopped: it is killed, for no VM could be
//! started any more, and has a successor. Its VMs end with it.
//!
//! A child has nothing of anybody's yet, so whoever gives up waiting for one loses nothing: it is killed when it comes
//! into being, by its pidfd, or ends by itself because nobody has the other end of its control socket.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;
use rustix::process::{Signal, pidfd_send_signal};
use tokio::sync::oneshot;
use tokio::time::timeout;
use weir_vmm::channel;
use weir_vmm::launcher::protocol::{ChildId, LauncherReply, LauncherRequest};

use super::child::{Child, Pidfd};
use super::socket::Socket;
use crate::launcher::StartError;

/// How long a launcher may take to fork, which takes it well under a millisecond.
const ANSWER: Duration = Duration::from_secs(3);

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Connection {
    socket: Socket,
    launcher: OwnedFd,
    next: AtomicU64,
    children: Mutex<Children>,
}

/// What is known of the launcher's children.
#[derive(Debug, Default)]
struct Children {
    unborn: HashMap<ChildId, Unborn>,
    /// Who wants to know how a process ended.
    born: HashMap<ChildId, oneshot::Sender<String>>,
    /// The launcher is gone: nothing more will be said.
    closed: bool,
}

/// A child that is asked for.
#[derive(Debug)]
struct Unborn {
    reply: oneshot::Sender<Result<Child, StartError>>,
    control: Socket,
}

/// Takes the expectation back unless the request was sent, also when the sender gives up.
struct Unsent<'a> {
    connection: &'a Connection,
    child: ChildId,
    sent: bool,
}

impl Drop for Unsent<'_> {
    fn drop(&mut self) {
        if !self.sent {
            self.connection.children.lock().unborn.remove(&self.child);
        }
    }
}

impl Connection {
    /// To the launcher at the other end of `socket`, whose pidfd is `launcher`. Inside a tokio runtime.
    pub(super) fn new(socket: OwnedFd, launcher: OwnedFd) -> io::Result<Self> {
        let socket = Socket::new(socket)?;
        Ok(Self { socket, launcher, next: AtomicU64::new(0), children: Mutex::default() })
    }

    /// Has a jailed child made.
    pub(super) async fn fork(&self) -> Result<Child, StartError> {
        let answer = timeout(ANSWER, self.ask()).await;
        answer.unwrap_or_else(|_| {
            tracing::error!(after = ?ANSWER, "launcher does not answer, killing it");
            // Fails only if it has ended. Its socket then does too, and whoever serves it knows.
            let _ = pidfd_send_signal(&self.launcher, Signal::KILL);
            Err(StartError::LauncherDied)
        })
    }

    async fn ask(&self) -> Result<Child, StartError> {
        let prepare = |source: io::Error| StartError::Prepare {
            what: "make the vm's control socket".to_owned(),
            source: source.into(),
        };
        let child = ChildId(self.next.fetch_add(1, Relaxed));
        let (ours, theirs) = channel::pair().map_err(prepare)?;
        let control = Socket::new(ours).map_err(prepare)?;
        let (reply, answer) = oneshot::channel();
        let mut unsent = self.expect(child, Unborn { reply, control })?;
        let sent = self.socket.send(&LauncherRequest::Fork(child), &[theirs.as_fd()]).await;
        sent.map_err(|_| StartError::LauncherDied)?;
        unsent.sent = true;
        drop((unsent, theirs));
        answer.await.unwrap_or(Err(StartError::LauncherDied))
    }

    fn expect(&self, child: ChildId, unborn: Unborn) -> Result<Unsent<'_>, StartError> {
        let mut children = self.children.lock();
        if children.closed {
            return Err(StartError::LauncherDied);
        }
        children.unborn.insert(child, unborn);
        Ok(Unsent { connection: self, child, sent: false })
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
            LauncherReply::Forked { child, pid } => self.forked(child, pid, files),
            LauncherReply::Failed { child, error } => {
                if let Some(unborn) = self.children.lock().unborn.remove(&child) {
                    // Who asked may have given up.
                    let _ = unborn.reply.send(Err(StartError::Refused(error)));
                }
            }
            LauncherReply::Exited { child, status } => {
                tracing::debug!(%child, status, "child reaped");
                if let Some(wants) = self.children.lock().born.remove(&child) {
                    let _ = wants.send(status);
                }
            }
        }
    }

    fn forked(&self, child: ChildId, pid: i32, files: Vec<OwnedFd>) {
        let (tell, status) = oneshot::channel();
        let unborn = {
            let mut children = self.children.lock();
            children.born.insert(child, tell);
            children.unborn.remove(&child)
        };
        let Some(Unborn { reply, control }) = unborn else {
            tracing::error!(%child, pid, "launcher forked what nobody ordered");
            return;
        };
        tracing::debug!(%child, pid, "child forked");
        let lost = |what: &str, source: Box<dyn std::error::Error + Send + Sync>| StartError::Prepare {
            what: what.to_owned(),
            source,
        };
        // Without its pidfd nobody could kill it; but it ends when its control socket does.
        let born = match files.into_iter().next() {
            None => Err(lost("take the pidfd of the child", "out of file descriptors".into())),
            Some(pidfd) => Pidfd::new(pidfd)
                .map(|process| Child { control, process, pid, group: None, status })
                .map_err(|error| lost("watch the child", error.into())),
        };
        // Dropped by who has given up, it is killed.
        drop(reply.send(born));
    }

    /// The launcher is gone, and the kernel kills its children.
    fn close(&self) {
        let unborn = {
            let mut children = self.children.lock();
            children.closed = true;
            children.born.clear();
            std::mem::take(&mut children.unborn)
        };
        for Unborn { reply, .. } in unborn.into_values() {
            let _ = reply.send(Err(StartError::LauncherDied));
        }
    }
}
