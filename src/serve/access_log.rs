//! The access log's file, or stdout, and whoever rotates it.

use anyhow::Context;
use prometheus::IntCounter;
use tokio::signal::unix::{Signal, SignalKind, signal};
use weir_config::model;
use weir_proxy::{AccessLog, AccessLogWriter};

/// Starts what `config` says.
///
/// # Errors
/// If its file cannot be opened, or a thread cannot be made.
pub(super) fn start(
    config: &model::AccessLog,
    dropped: IntCounter,
) -> anyhow::Result<(AccessLog, AccessLogWriter)> {
    let (log, writer) = match &config.file {
        Some(path) => AccessLog::start_file(path, dropped)
            .with_context(|| format!("open the access log {}", path.display()))?,
        None => AccessLog::start(std::io::stdout(), dropped).context("start the access log")?,
    };
    Ok((log.with_format(config.format).with_sample(config.sample), writer))
}

/// The signal that says that the file was renamed. To be had before there can be one: it would end weir.
///
/// # Errors
/// If the kernel lets no handler be installed.
pub(super) fn rotation() -> anyhow::Result<Signal> {
    signal(SignalKind::user_defined1()).context("handle SIGUSR1")
}

/// Opens the file again whenever `rotation` says so. Holds the log, and so its writer, until it is stopped.
pub(super) async fn reopen(log: AccessLog, mut rotation: Signal) {
    while rotation.recv().await.is_some() {
        log.reopen();
    }
}
