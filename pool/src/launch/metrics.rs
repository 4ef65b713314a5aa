//! Metrics of templates and of the clones that failed.

use prometheus::{IntCounterVec, IntGaugeVec, Opts, Registry};

/// The metric families.
#[derive(Clone, Debug)]
pub struct LaunchMetrics {
    made: IntCounterVec,
    ready: IntGaugeVec,
    memory: IntGaugeVec,
    fallbacks: IntCounterVec,
    snapshots: IntCounterVec,
}

/// What became of a template's file.
#[derive(Clone, Copy, Debug)]
pub(super) enum SnapshotResult {
    /// It is in use.
    Loaded,
    /// It was written.
    Saved,
    /// It is damaged, or what is in it does not work.
    Rejected,
    /// It could not be written.
    Failed,
}

impl LaunchMetrics {
    /// Makes the families and registers them.
    ///
    /// # Errors
    /// If `registry` has one of them already.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let metrics = Self {
            made: IntCounterVec::new(
                Opts::new("weir_vm_templates_made_total", "Attempts to make a template."),
                &["pool", "result"],
            )?,
            ready: IntGaugeVec::new(
                Opts::new("weir_vm_template_ready", "Whether VMs of the pool start as clones: 1 or 0."),
                &["pool"],
            )?,
            memory: IntGaugeVec::new(
                Opts::new(
                    "weir_vm_template_memory_bytes",
                    "Memory of the pool's template, which its clones share.",
                ),
                &["pool"],
            )?,
            fallbacks: IntCounterVec::new(
                Opts::new("weir_vm_clone_fallbacks_total", "VMs that booted because a clone failed."),
                &["pool"],
            )?,
            snapshots: IntCounterVec::new(
                Opts::new("weir_vm_snapshots_total", "Files of templates that were read or written."),
                &["pool", "result"],
            )?,
        };
        registry.register(Box::new(metrics.made.clone()))?;
        registry.register(Box::new(metrics.ready.clone()))?;
        registry.register(Box::new(metrics.memory.clone()))?;
        registry.register(Box::new(metrics.fallbacks.clone()))?;
        registry.register(Box::new(metrics.snapshots.clone()))?;
        Ok(metrics)
    }

    pub(super) fn made(&self, pool: &str, ok: bool) {
        self.made.with_label_values(&[pool, if ok { "ok" } else { "failed" }]).inc();
    }

    /// VMs of `pool` start as clones of a template of so many bytes; `None`: they boot.
    pub(super) fn template(&self, pool: &str, resident: Option<u64>) {
        self.ready.with_label_values(&[pool]).set(resident.is_some().into());
        let bytes = i64::try_from(resident.unwrap_or(0)).unwrap_or(i64::MAX);
        self.memory.with_label_values(&[pool]).set(bytes);
    }

    pub(super) fn fallback(&self, pool: &str) {
        self.fallbacks.with_label_values(&[pool]).inc();
    }

    pub(super) fn snapshot(&self, pool: &str, result: SnapshotResult) {
        self.snapshots.with_label_values(&[pool, result.label()]).inc();
    }

    /// How often that was counted.
    #[cfg(test)]
    pub(super) fn snapshots(&self, pool: &str, result: SnapshotResult) -> u64 {
        self.snapshots.with_label_values(&[pool, result.label()]).get()
    }
}

impl SnapshotResult {
    fn label(self) -> &'static str {
        match self {
            Self::Loaded => "loaded",
            Self::Saved => "saved",
            Self::Rejected => "rejected",
            Self::Failed => "failed",
        }
    }
}
