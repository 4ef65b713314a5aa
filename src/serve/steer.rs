//! What changes a weir that serves: reloads and upgrades, one at a time.
//!
//! They come from signals, from the configuration's file and from the administration endpoint. Whoever asked there hears how
//! it ended, the others find it in the log.

use std::pin::pin;

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use weir_proxy::admin::{ProcessChange, ProcessOrder};

use super::reload::Reload;
use super::upgrade::{Upgrade, UpgradeError};

/// See the module's documentation.
pub(super) struct Steer {
    reload: Reload,
    upgrade: Upgrade,
    hangup: Signal,
    quit: Signal,
    orders: mpsc::Receiver<ProcessOrder>,
}

/// What is due.
enum Due {
    /// A reload, and why.
    Reload(&'static str),
    /// What signals ask for.
    Upgrade,
    /// What somebody waits for.
    Order(ProcessOrder),
}

impl Steer {
    /// # Errors
    /// If the kernel lets no handler be installed.
    pub(super) fn new(
        reload: Reload,
        upgrade: Upgrade,
        orders: mpsc::Receiver<ProcessOrder>,
    ) -> anyhow::Result<Self> {
        let hangup = signal(SignalKind::hangup()).context("handle SIGHUP")?;
        let quit = signal(SignalKind::quit()).context("handle SIGQUIT")?;
        Ok(Self { reload, upgrade, hangup, quit, orders })
    }

    /// Does what is due, until another weir has taken this one's place. Stopped while it reloads, it may leave pools of both
    /// configurations behind; stopped during an upgrade, nothing.
    pub(super) async fn run(mut self) {
        loop {
            let (taken_over, order) = match self.due().await {
                Due::Reload(why) => {
                    // It is logged.
                    let _ = self.reload.run(why).await;
                    continue;
                }
                Due::Upgrade => (self.upgrade("SIGQUIT").await, None),
                Due::Order(order) => match order.change {
                    ProcessChange::Reload => {
                        order.answer(self.reload.run("asked for").await);
                        continue;
                    }
                    ProcessChange::Upgrade => (self.upgrade("asked for").await, Some(order)),
                },
            };
            let over = taken_over.is_ok();
            if let Some(order) = order {
                order.answer(taken_over.map(|()| "another weir serves".to_owned()));
            }
            if over {
                return;
            }
        }
    }

    async fn due(&mut self) -> Due {
        tokio::select! {
            _ = self.hangup.recv() => Due::Reload("SIGHUP"),
            () = self.reload.file_changed() => Due::Reload("the file changed"),
            _ = self.quit.recv() => Due::Upgrade,
            Some(order) = self.orders.recv() => Due::Order(order),
        }
    }

    /// Has another weir take over; why it did not.
    async fn upgrade(&mut self, why: &'static str) -> Result<(), String> {
        tracing::info!(why, "upgrading");
        let Self { reload, upgrade, quit, orders, .. } = self;
        let mut upgrading = pin!(upgrade.run(reload.current().host.upgrade_timeout));
        let upgraded = loop {
            tokio::select! {
                upgraded = &mut upgrading => break upgraded,
                _ = quit.recv() => tracing::info!("SIGQUIT ignored: an upgrade is under way"),
                Some(order) = orders.recv() => order.answer(Err("an upgrade is under way".to_owned())),
            }
        };
        upgraded.map_err(|error| {
            let error = with_causes(error);
            tracing::error!(error, "not upgraded, this weir goes on");
            error
        })
    }
}

fn with_causes(error: UpgradeError) -> String {
    format!("{:#}", anyhow::Error::new(error))
}
