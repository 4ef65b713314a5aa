//! What signals ask of weir. Those that a terminal, a log rotation or a habit may send do not end it.

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that end weir.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    /// It means nothing. Where nobody listens it ends a process.
    _ignored: Signal,
}

impl Signals {
    /// # Errors
    /// If the kernel lets no handler be installed.
    pub(super) fn new() -> anyhow::Result<Self> {
        let terminate = signal(SignalKind::terminate()).context("handle SIGTERM")?;
        let interrupt = signal(SignalKind::interrupt()).context("handle SIGINT")?;
        let two = signal(SignalKind::user_defined2()).context("handle SIGUSR2")?;
        Ok(Self { terminate, interrupt, _ignored: two })
    }

    /// The next one's name.
    pub(super) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
