//! Spans of requests, sent to a collector that speaks OTLP over HTTP
//! (<https://opentelemetry.io/docs/specs/otlp/>), in its JSON form.
//!
//! ```text
//!  request begins: sampled? ──no──> nothing more
//!     │ yes: a span of its own, which the VM's traceparent names
//!     v
//!  request ends: its span as text ──> bounded queue ──> thread "otlp": batches ──> collector
//!                                        │ full             │ not taken: again, later and later; then given up
//!                                        v                  v
//!                                     dropped, counted   failed, counted
//! ```
//!
//! Requests wait for nothing here. The collector is reached through the host's network namespace. See ADR 0032.

mod describe;
mod json;
mod metrics;
mod sampling;
mod span;
mod worker;

#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use http::uri::InvalidUri;
use tokio::sync::{mpsc, oneshot};
use weir_config::model::{Config, Thousandths};
use weir_pool::Network;

pub use metrics::OtlpMetrics;
pub(crate) use span::Span;

use self::worker::Worker;
use crate::outside::{self, Outside, PlainText};
use crate::tls::CertificateError;

/// Spans that may wait for the thread: as many as OpenTelemetry's own exporters keep. Each has a few KiB at most, see
/// [`json`].
const WAITING_MAX: usize = 2048;

/// What sends spans.
#[derive(Debug)]
pub struct Otlp {
    spans: Spans,
    /// Dropped, it has the thread come to an end.
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

/// Where requests leave their spans. Clones lead to the same collector.
#[derive(Clone, Debug)]
pub struct Spans {
    waiting: mpsc::Sender<Vec<u8>>,
    sample: Thousandths,
    metrics: OtlpMetrics,
}

/// Why spans cannot be sent at all.
#[derive(Debug, thiserror::Error)]
pub enum OtlpError {
    /// The endpoint is no URL.
    #[error("read the collector's url {url:?}")]
    Url {
        /// The URL.
        url: String,
        /// What is wrong with it.
        source: InvalidUri,
    },
    /// The file with the roots of the collector's certificate cannot be used.
    #[error("trust the collector")]
    Roots(#[from] CertificateError),
    /// This machine trusts nobody.
    #[error("this machine has no root certificates: install ca-certificates or set telemetry.otlp.ca")]
    NoRoots,
    /// TLS with the collector cannot be set up.
    #[error("set TLS with the collector up")]
    Tls(#[from] rustls::Error),
    /// There is no thread for it.
    #[error("start the thread that sends spans")]
    Thread(#[source] io::Error),
}

impl Otlp {
    /// Begins to send spans where `config` says. `network`: the host's. `None`: it says nothing of that.
    ///
    /// # Errors
    /// If that cannot succeed however often it is tried. That the collector does not answer is no such reason.
    pub fn start(
        config: &Config,
        network: Arc<dyn Network>,
        metrics: OtlpMetrics,
    ) -> Result<Option<Self>, OtlpError> {
        let Some(otlp) = &config.otlp else { return Ok(None) };
        let roots = outside::trusted(otlp.ca.as_deref())?;
        // In plain text nobody shows any.
        if roots.is_empty() && otlp.endpoint.starts_with("https") {
            return Err(OtlpError::NoRoots);
        }
        let outside = Outside::new(network, roots, PlainText::Allowed, otlp.timeout)?;
        let (waiting, left) = mpsc::channel(WAITING_MAX);
        let (stop, stopped) = oneshot::channel();
        let worker = Worker::new(otlp, outside, metrics.clone(), left, stopped)?;
        let thread = worker.start().map_err(OtlpError::Thread)?;
        let spans = Spans { waiting, sample: otlp.sample, metrics };
        Ok(Some(Self { spans, stop, thread }))
    }

    /// Where requests leave their spans.
    pub fn spans(&self) -> Spans {
        self.spans.clone()
    }

    /// Sends what waits, each span once more and not again, and waits for that: for as long as the collector may take. Spans
    /// that come from now on are dropped.
    pub fn finish(self) {
        drop(self.stop);
        if self.thread.join().is_err() {
            tracing::error!("the thread that sends spans has panicked");
        }
    }
}

impl Spans {
    /// Leaves a span, in JSON, for the thread.
    fn leave(&self, span: Vec<u8>) {
        if self.waiting.try_send(span).is_err() {
            self.metrics.dropped(1);
        }
    }
}
