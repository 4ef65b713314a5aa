//! What is told of certificates that are obtained.

use std::time::{SystemTime, UNIX_EPOCH};

use prometheus::{GaugeVec, IntCounterVec, Opts, Registry};

/// Values of the `result` label.
const RESULTS: [&str; 2] = ["ok", "failed"];

/// The metric families of [`super::Acme`].
#[derive(Clone, Debug)]
pub struct AcmeMetrics {
    orders: IntCounterVec,
    not_after: GaugeVec,
}

impl AcmeMetrics {
    /// Makes the families and registers them.
    ///
    /// # Errors
    /// If `registry` has one of them already.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let orders = Opts::new(
            "weir_acme_orders_total",
            "Times that a certificate was to be obtained, by how that ended.",
        );
        let orders = IntCounterVec::new(orders, &["result"])?;
        let what = "When a certificate that was obtained expires, in seconds since 1970.";
        let not_after = GaugeVec::new(Opts::new("weir_certificate_not_after_seconds", what), &["name"])?;
        registry.register(Box::new(orders.clone()))?;
        registry.register(Box::new(not_after.clone()))?;
        for result in RESULTS {
            // Shown from the start, with none.
            orders.with_label_values(&[result]);
        }
        Ok(Self { orders, not_after })
    }

    pub(super) fn ordered(&self, obtained: bool) {
        self.orders.with_label_values(&[RESULTS[usize::from(!obtained)]]).inc();
    }

    pub(super) fn holds(&self, name: &str, expires: SystemTime) {
        let seconds = expires.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        self.not_after.with_label_values(&[name]).set(seconds);
    }

    pub(super) fn forget_all(&self) {
        self.not_after.reset();
    }
}
