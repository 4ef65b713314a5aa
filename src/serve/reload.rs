//! Another configuration for a weir that serves.
//!
//! ```text
//!  SIGHUP, `weir reload`, or the file is another one
//!     │
//!     v      all of it, as `weir check`    what differs       what can fail          what cannot
//!   read ──────────────> valid ──────────────> change ──────────────> staged ──────────────> in use
//!     └──────────────────┴─────────────────────┴──────────────────────┘
//!                          logged and counted; the running one stays
//! ```
//!
//! In use: first pools are added and changed, then requests get the new routes, then pools are removed. So at no moment
//! does a route lead to a pool that is not there.

use std::sync::Arc;

use anyhow::Context;
use prometheus::{IntCounterVec, Opts, Registry};
use tokio::sync::oneshot;
use weir_config::change::{Change, PoolChange};
use weir_config::model::Config;
use weir_net::host::HostThread;
use weir_pool::Pools;
use weir_proxy::acme::Acme;
use weir_proxy::{ListenerChange, Reloader, bind_listener, listeners_to_bind};

use super::file::ConfigFile;
use crate::check;
use crate::cli::Failure;

/// Values of the `result` label.
const OK: &str = "ok";
const FAILED: &str = "failed";

/// Where a configuration comes from, and the sockets that it names.
pub(super) struct Source {
    pub(super) file: ConfigFile,
    /// In the host's network namespace.
    pub(super) outside: Arc<HostThread>,
}

/// What is reloaded, and from where.
pub(super) struct Reload {
    source: Source,
    current: Arc<Config>,
    pools: Pools,
    reloader: Reloader,
    /// `None`: no certificates are obtained.
    acme: Option<Acme>,
    results: IntCounterVec,
}

impl Reload {
    /// Of `current`, which was read from `file` and is what `pools` and the proxy of `reloader` are.
    ///
    /// # Errors
    /// If its metric is there already.
    pub(super) fn new(
        source: Source,
        current: Arc<Config>,
        pools: Pools,
        reloader: Reloader,
        acme: Option<Acme>,
        registry: &Registry,
    ) -> anyhow::Result<Self> {
        let what = "Times that the configuration was to be read again, by how that ended.";
        let results = IntCounterVec::new(Opts::new("weir_config_reloads_total", what), &["result"])
            .context("make the reloads' metric")?;
        registry.register(Box::new(results.clone())).context("register the reloads' metric")?;
        for result in [OK, FAILED] {
            // Shown from the start, with none.
            results.with_label_values(&[result]);
        }
        Ok(Self { source, current, pools, reloader, acme, results })
    }

    /// The configuration that is in use.
    pub(super) fn current(&self) -> &Config {
        &self.current
    }

    /// Resolves when the file is another one than at the last reload. Cancel-safe.
    pub(super) async fn file_changed(&mut self) {
        self.source.file.changed().await;
    }

    /// Reads the file and becomes what it says; what that has changed, or why it has not. Stopped before its end, it may
    /// leave pools of both configurations behind.
    pub(super) async fn run(&mut self, why: &str) -> Result<String, String> {
        self.source.file.seen();
        tracing::info!(why, file = ?self.source.file.path(), "reloading");
        let reloaded = self.reload().await;
        // First, for whoever hears of it may look.
        self.results.with_label_values(&[if reloaded.is_ok() { OK } else { FAILED }]).inc();
        match reloaded {
            Ok(change) => {
                tracing::info!(%change, "configuration reloaded");
                Ok(change.to_string())
            }
            Err(error) => {
                let error = format!("{error:#}");
                tracing::error!(error, "configuration not reloaded, the running one stays");
                Err(error)
            }
        }
    }

    async fn reload(&mut self) -> anyhow::Result<Change> {
        let file = self.source.file.path().to_owned();
        let read = tokio::task::spawn_blocking(move || check::load(&file).map(|(config, _)| config));
        let new = read.await.context("read the configuration")?.map_err(Failure::into_error)?;
        let new = Arc::new(new);
        let change = Change::between(&self.current, &new)?;
        let listeners = self.source.listeners(&change).await?;
        let staged = self.pools.stage(&change).await?;
        staged.commit().await;
        // Whatever comes now, that is what the pools are.
        self.current = new.clone();
        self.reloader.reload(new.clone(), listeners).await?;
        if let Some(acme) = &self.acme {
            acme.reload(&new);
        }
        let removed = change.pools.iter().filter(|(_, change)| **change == PoolChange::Removed);
        self.pools.retire(removed.map(|(name, _)| name.as_str()));
        Ok(change)
    }
}

impl Source {
    /// What `change` says of listeners, with their sockets.
    async fn listeners(&self, change: &Change) -> anyhow::Result<ListenerChange> {
        let mut sockets = Vec::new();
        for listener in listeners_to_bind(change) {
            let (listener, (reply, bound)) = (listener.clone(), oneshot::channel());
            // Whoever wants it waits for it, or weir ends.
            self.outside.run(move || drop(reply.send(bind_listener(&listener))));
            let socket = bound.await.context("ask the thread that binds listeners")??;
            let address = socket.address().context("ask for a listener's address")?;
            tracing::info!(key = "listener", %address, "listening");
            sockets.push(socket);
        }
        Ok(ListenerChange::new(change, sockets)?)
    }
}
