//! Another weir in the place of this one, on the same sockets.
//!
//! ```text
//!  serving ── starts the program that is at its path now ──> handing over ── it accepts ──> draining, and then the end
//!     ^                                                           │ it ends, or takes too long and is killed
//!     └─────────────── as if nothing had been ────────────────────┘
//! ```
//!
//! See [`crate::handover`] for what is said. The new process is started by the thread that has stayed in the host's network
//! namespace, and is there too; where weir is not root on the host, both are in the same user namespace. It makes its own
//! network namespace, its launcher and its VMs.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use weir_config::Config;
use weir_net::host::HostThread;
use weir_proxy::{OpenSocket, Reloader, ServeError};

use super::notify;
use crate::handover::{Conversation, Program, Successor, SuccessorError};

/// How long a weir that is prepared may take to accept.
const ACCEPT: Duration = Duration::from_secs(5);

/// How long a weir that has hung up may take to end, so that it can be told how.
const END: Duration = Duration::from_secs(1);

/// What an upgrade takes.
#[derive(Debug)]
pub(super) struct Upgrade {
    program: Program,
    /// In the host's network namespace.
    outside: Arc<HostThread>,
    reloader: Reloader,
    /// The administration endpoint's address in the configuration, and a second descriptor of its socket.
    admin: Option<(SocketAddr, TcpListener)>,
}

/// Why this weir goes on.
#[derive(Debug, thiserror::Error)]
pub(super) enum UpgradeError {
    /// All other processes of its container would end with it.
    #[error("weir is process 1, with which everything ends: start another container")]
    FirstProcess,
    /// The listening sockets cannot be had.
    #[error("look for the listening sockets")]
    Sockets(#[from] ServeError),
    /// The program cannot be started.
    #[error("start {program:?}")]
    Start {
        /// Its path.
        program: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// There are no descriptors left.
    #[error("pass a listening socket on")]
    Descriptor(#[source] io::Error),
    /// It does not take over.
    #[error("the new weir does not take over ({status})")]
    Failed {
        /// How its process ended.
        status: String,
        /// What went wrong between the two.
        source: SuccessorError,
    },
    /// It took too long.
    #[error("the new weir was not ready within {0:?} and was killed (host.upgrade_timeout)")]
    TooSlow(Duration),
    /// A bug.
    #[error("a bug ended it")]
    Panicked,
}

/// Why it is not taken over, before it is known how the other process ended.
enum Failure {
    Said(SuccessorError),
    Descriptor(io::Error),
    TooSlow,
    Panicked,
}

impl Upgrade {
    /// Of `program`, which this is. `reloader` leads to the proxy; `admin` is bound as `config` says.
    ///
    /// # Errors
    /// If there are no descriptors left.
    pub(super) fn new(
        program: Program,
        outside: Arc<HostThread>,
        reloader: Reloader,
        config: &Config,
        admin: Option<&TcpListener>,
    ) -> io::Result<Self> {
        let admin = config.admin.as_ref().zip(admin);
        let admin = admin.map(|(admin, socket)| Ok::<_, io::Error>((admin.address, socket.try_clone()?)));
        Ok(Self { program, outside, reloader, admin: admin.transpose()? })
    }

    /// Has the program that is at this one's path now take over, and then this weir leave. `patience`: for it to be prepared.
    ///
    /// # Errors
    /// If it does not take over: this weir serves as before, and nothing is left of it. Dropped before the end, the same.
    pub(super) async fn run(&self, patience: Duration) -> Result<(), UpgradeError> {
        if std::process::id() == 1 {
            return Err(UpgradeError::FirstProcess);
        }
        let sockets = self.reloader.sockets().await?;
        let admin =
            self.admin.as_ref().map(|(address, socket)| Ok((address.to_string(), socket.try_clone()?)));
        let admin = admin.transpose().map_err(UpgradeError::Descriptor)?;
        let (successor, conversation) = self.start().await?;
        let taken = hand_over(conversation, sockets, admin, patience).await;
        let sockets = match taken {
            Ok(sockets) => sockets,
            Err(failure) => return Err(failure.of(successor, patience).await),
        };
        sockets.iter().for_each(OpenSocket::disown);
        if let Some(pid) = successor.pid() {
            tracing::info!(pid, "the new weir serves");
            notify::main_process(&self.outside, pid);
        }
        successor.let_go();
        Ok(self.reloader.leave().await?)
    }

    async fn start(&self) -> Result<(Successor, Conversation), UpgradeError> {
        let (reply, started) = oneshot::channel();
        let program = self.program.clone();
        self.outside.run(move || drop(reply.send(program.start())));
        let error = |source| UpgradeError::Start { program: self.program.path().to_owned(), source };
        let started = started.await.map_err(|_| UpgradeError::Panicked)?.map_err(error)?;
        tracing::info!(pid = started.0.pid(), program = ?self.program.path(), "started a new weir");
        Ok(started)
    }
}

/// Says all that is to be said; the sockets that are the other's then.
async fn hand_over(
    conversation: Conversation,
    sockets: Vec<OpenSocket>,
    admin: Option<(String, TcpListener)>,
    patience: Duration,
) -> Result<Vec<OpenSocket>, Failure> {
    let preparing = spawn_blocking(move || {
        for socket in &sockets {
            if let Some(descriptor) = socket.descriptor().map_err(Failure::Descriptor)? {
                conversation.hand(false, socket.address().to_string(), descriptor.as_fd())?;
            }
        }
        if let Some((address, socket)) = admin {
            conversation.hand(true, address, socket.as_fd())?;
        }
        conversation.prepare()?;
        Ok::<_, Failure>((conversation, sockets))
    });
    let prepared = timeout(patience, preparing).await.map_err(|_| Failure::TooSlow)?;
    let (conversation, sockets) = prepared.map_err(|_| Failure::Panicked)??;
    let accepting = timeout(ACCEPT, spawn_blocking(move || conversation.accept()));
    accepting.await.map_err(|_| Failure::TooSlow)?.map_err(|_| Failure::Panicked)??;
    Ok(sockets)
}

impl From<SuccessorError> for Failure {
    fn from(error: SuccessorError) -> Self {
        Self::Said(error)
    }
}

impl Failure {
    /// The whole of it, once nothing is left of `successor`.
    async fn of(self, successor: Successor, patience: Duration) -> UpgradeError {
        let grace = match &self {
            Self::Said(SuccessorError::Ended | SuccessorError::Tell(_)) => END,
            _ => Duration::ZERO,
        };
        let ended = spawn_blocking(move || successor.end(grace)).await;
        let Ok(status) = ended else { return UpgradeError::Panicked };
        match self {
            Self::Said(source) => UpgradeError::Failed { status, source },
            Self::Descriptor(source) => UpgradeError::Descriptor(source),
            Self::TooSlow => UpgradeError::TooSlow(patience),
            Self::Panicked => UpgradeError::Panicked,
        }
    }
}
