//! weir's own log, on stderr. (The access log is the proxy's, on stdout.)
//!
//! Whoever reads stderr may be slow, or go away. Neither may hold up or end weir: a thread of its own writes, lines that
//! it has no room for are dropped, and what it cannot write is lost without another word, there being nobody to tell.

use std::io::IsTerminal;

use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;

use crate::cli::LogFormat;

/// Lines that may wait for the writer. A guest's line may have several KiB, so this is also a bound of memory.
const LINES: usize = 4096;

/// Starts logging; `WEIR_LOG` holds filter directives such as `debug` or `weir_pool=trace`. The last lines are written
/// when the guard is dropped. Starts a thread, so only after this process is where it wants to be.
pub(crate) fn start(format: LogFormat) -> WorkerGuard {
    let filter = EnvFilter::try_from_env("WEIR_LOG").unwrap_or_else(|_| EnvFilter::new("info,pingora=warn"));
    let (writer, guard) = NonBlockingBuilder::default().buffered_lines_limit(LINES).finish(std::io::stderr());
    // By default a failed write is reported by eprintln!, which panics where stderr is what failed.
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).log_internal_errors(false);
    match format {
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).init(),
        LogFormat::Json => builder.json().init(),
    }
    guard
}
