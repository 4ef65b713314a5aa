//! What pools of servers outside tell Prometheus besides what all pools do.

use prometheus::{IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use crate::owner::Suspicion;

/// The families.
#[derive(Clone, Debug)]
pub(crate) struct UpstreamMetrics {
    servers: IntGaugeVec,
    ejections: IntCounterVec,
    lookups: IntCounterVec,
}

/// One pool's series.
#[derive(Debug)]
pub(super) struct UpstreamSeries {
    pool: String,
    pub(super) in_service: IntGauge,
    pub(super) out_of_service: IntGauge,
    pub(super) leaving: IntGauge,
    ejections: IntCounterVec,
    lookups: IntCounterVec,
}

impl UpstreamMetrics {
    pub(crate) fn register(registry: &Registry) -> prometheus::Result<Self> {
        let counter = |name, help, labels: &[&str]| IntCounterVec::new(Opts::new(name, help), labels);
        let servers = Opts::new("weir_upstream_servers", "Servers of external pools.");
        let metrics = Self {
            servers: IntGaugeVec::new(servers, &["pool", "state"])?,
            ejections: counter(
                "weir_upstream_ejections_total",
                "Servers that were taken out of service because they did not work.",
                &["pool", "reason"],
            )?,
            lookups: counter(
                "weir_upstream_lookups_total",
                "Names of servers that were looked up.",
                &["pool", "result"],
            )?,
        };
        registry.register(Box::new(metrics.servers.clone()))?;
        registry.register(Box::new(metrics.ejections.clone()))?;
        registry.register(Box::new(metrics.lookups.clone()))?;
        Ok(metrics)
    }

    pub(super) fn series(&self, pool: &str) -> UpstreamSeries {
        let servers = |state| self.servers.with_label_values(&[pool, state]);
        UpstreamSeries {
            pool: pool.to_owned(),
            in_service: servers("in_service"),
            out_of_service: servers("out_of_service"),
            leaving: servers("leaving"),
            ejections: self.ejections.clone(),
            lookups: self.lookups.clone(),
        }
    }
}

impl UpstreamSeries {
    pub(super) fn ejected(&self, why: Suspicion) {
        self.ejections.with_label_values(&[self.pool.as_str(), why.label()]).inc();
    }

    pub(super) fn looked_up(&self, found: bool) {
        let result = if found { "ok" } else { "failed" };
        self.lookups.with_label_values(&[self.pool.as_str(), result]).inc();
    }
}
