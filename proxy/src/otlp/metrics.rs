//! What is told of spans.

use prometheus::{IntCounter, IntCounterVec, Opts, Registry};

/// The metric families of [`super::Otlp`].
#[derive(Clone, Debug)]
pub struct OtlpMetrics {
    sent: IntCounter,
    failed: IntCounter,
    dropped: IntCounter,
}

impl OtlpMetrics {
    /// Makes the families and registers them.
    ///
    /// # Errors
    /// If `registry` has one of them already.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let what = "Spans of requests, by whether the collector took them (sent), did not take them (failed), or was so slow \
                    that they were not even kept (dropped).";
        let spans = IntCounterVec::new(Opts::new("weir_otlp_spans_total", what), &["result"])?;
        registry.register(Box::new(spans.clone()))?;
        // Shown from the start, with none.
        let [sent, failed, dropped] =
            ["sent", "failed", "dropped"].map(|result| spans.with_label_values(&[result]));
        Ok(Self { sent, failed, dropped })
    }

    pub(super) fn sent(&self, spans: u64) {
        self.sent.inc_by(spans);
    }

    pub(super) fn failed(&self, spans: u64) {
        self.failed.inc_by(spans);
    }

    pub(super) fn dropped(&self, spans: u64) {
        self.dropped.inc_by(spans);
    }
}

#[cfg(test)]
impl OtlpMetrics {
    /// Sent, failed, dropped.
    pub(super) fn counts(&self) -> [u64; 3] {
        [&self.sent, &self.failed, &self.dropped].map(IntCounter::get)
    }
}
