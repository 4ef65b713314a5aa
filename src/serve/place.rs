//! The place that weir takes: nobody's, or that of a weir before it.

use anyhow::Context;
use weir_config::Config;
use weir_net::host::HostThread;
use weir_proxy::{Claim, Listeners};

use super::notify;
use super::signals::Signals;
use crate::handover::Inheritance;

/// See the module's documentation.
pub(super) struct Place {
    /// `None`: nobody's.
    inheritance: Option<Inheritance>,
    claim: Claim,
}

impl Place {
    /// The sockets of `config`: those of the weir before, and others that are bound in the calling thread's network namespace.
    ///
    /// # Errors
    /// If one cannot be bound.
    pub(super) fn bind(
        config: &Config,
        mut inheritance: Option<Inheritance>,
    ) -> anyhow::Result<(Self, Listeners)> {
        let handed = inheritance.as_mut().map(Inheritance::sockets).unwrap_or_default();
        let (listeners, claim) = weir_proxy::bind_beside(config, handed).context("listen")?;
        Ok((Self { inheritance, claim }, listeners))
    }

    /// All is there but the accepting: waits until that may begin.
    ///
    /// # Errors
    /// If it may not, or a signal ends weir.
    pub(super) async fn prepared(mut self, signals: &mut Signals) -> anyhow::Result<Self> {
        let Some(inheritance) = self.inheritance.take() else { return Ok(self) };
        tracing::info!("prepared to take over");
        let waiting = tokio::task::spawn_blocking(move || inheritance.prepared().map(|()| inheritance));
        let inheritance = tokio::select! {
            waited = waiting => waited.context("wait for the weir before")?.context("take over from another weir")?,
            signal = signals.next() => anyhow::bail!("{signal} before it had taken over from another weir"),
        };
        self.inheritance = Some(inheritance);
        Ok(self)
    }

    /// Connections are accepted: it is this weir's.
    pub(super) fn taken(self, outside: &HostThread) {
        match self.inheritance.map(Inheritance::serving) {
            None => notify::ready(outside),
            Some(Ok(())) => tracing::info!("took over from another weir"),
            Some(Err(error)) => tracing::warn!(%error, "the weir before is gone already"),
        }
        self.claim.make();
    }
}
