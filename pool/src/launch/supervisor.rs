//! Keeps a launcher alive.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use weir_vmm::cgroup::CgroupPool;
use weir_vmm::launcher::{LauncherHandle, SpawnError};

use super::connection::Connection;
use super::spares::Spares;
use crate::launcher::StartError;

/// The pause after a launcher that did not live for [`LASTING`]; doubled by each that follows.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
const LASTING: Duration = Duration::from_secs(5);

/// How launchers are made.
pub(super) type Spawn = Arc<dyn Fn() -> Result<LauncherHandle, SpawnError> + Send + Sync>;

/// The task that spawns launchers; dropping it ends the launcher.
pub(super) struct Supervisor {
    current: watch::Receiver<Option<Arc<Spares>>>,
    task: JoinHandle<()>,
}

/// The way to the launcher, whichever it is.
#[derive(Clone, Debug)]
pub(super) struct Current(watch::Receiver<Option<Arc<Spares>>>);

impl Supervisor {
    /// Spawns the first launcher, and the task that spawns its successors.
    pub(super) fn start(spawn: Spawn, groups: Option<CgroupPool>) -> Result<Self, SpawnError> {
        let first = connect(&spawn)?;
        let (sender, current) = watch::channel(Some(Spares::new(first.clone(), groups.clone())));
        let task = tokio::spawn(supervise(spawn, groups, first, sender));
        Ok(Self { current, task })
    }

    pub(super) fn current(&self) -> Current {
        Current(self.current.clone())
    }
}

impl std::fmt::Debug for Supervisor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Supervisor").field("current", &self.current).finish_non_exhaustive()
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Current {
    /// Children of the launcher that lives, or of the next one.
    pub(super) async fn spares(mut self) -> Result<Arc<Spares>, StartError> {
        let current = self.0.wait_for(Option::is_some).await.map_err(|_| StartError::LauncherDied)?;
        current.clone().ok_or(StartError::LauncherDied)
    }
}

async fn supervise(
    spawn: Spawn,
    groups: Option<CgroupPool>,
    first: Arc<Connection>,
    current: watch::Sender<Option<Arc<Spares>>>,
) {
    let mut connection = first;
    let mut pause = Duration::ZERO;
    loop {
        let born = Instant::now();
        let spares = current.borrow().clone();
        tokio::select! {
            () = connection.serve() => {}
            () = refill(spares) => {}
        }
        current.send_replace(None);
        drop(connection);
        if Instant::now() - born >= LASTING {
            pause = Duration::ZERO;
        }
        tracing::error!(again_in = ?pause, "launcher died, and its vms with it");
        connection = respawn(&spawn, &mut pause).await;
        current.send_replace(Some(Spares::new(connection.clone(), groups.clone())));
    }
}

/// Keeps the launcher's spares; never ends, for their connection tells when the launcher has.
async fn refill(spares: Option<Arc<Spares>>) {
    if let Some(spares) = spares {
        spares.refill().await;
    }
    std::future::pending().await
}

/// Tries until there is one, with pauses that grow.
async fn respawn(spawn: &Spawn, pause: &mut Duration) -> Arc<Connection> {
    loop {
        sleep(*pause).await;
        *pause = (*pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
        let spawn = spawn.clone();
        match tokio::task::spawn_blocking(move || connect(&spawn)).await {
            Ok(Ok(connection)) => return connection,
            Ok(Err(error)) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                tracing::error!(%error, cause, again_in = ?*pause, "no launcher");
            }
            Err(error) => tracing::error!(%error, "no launcher"),
        }
    }
}

fn connect(spawn: &Spawn) -> Result<Arc<Connection>, SpawnError> {
    let handle = spawn()?;
    tracing::info!(pid = handle.pid, "launcher started");
    Connection::new(handle.socket, handle.pidfd).map(Arc::new).map_err(SpawnError::Socket)
}
