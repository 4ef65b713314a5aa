//! What pools tell Prometheus.

use std::time::Duration;

use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry,
};

use crate::external::UpstreamMetrics;
use crate::idle::Found;
use crate::launcher::StartKind;
use crate::pool::Instances;

/// From a tenth of a millisecond (a hand-over) to the longest timeouts.
const SECONDS: &[f64] = &[
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
    30.0,
];

/// The metric families of all pools.
#[derive(Clone, Debug)]
pub struct PoolMetrics {
    queue_depth: IntGaugeVec,
    queue_wait: HistogramVec,
    shed: IntCounterVec,
    instances: IntGaugeVec,
    desired: IntGaugeVec,
    panic: IntGaugeVec,
    starts_waiting: IntGaugeVec,
    start_duration: HistogramVec,
    resets: IntCounterVec,
    reset_duration: HistogramVec,
    exits: IntCounterVec,
    rollouts: IntCounterVec,
    checks: Checks,
    signal_scrapes: IntCounterVec,
    signal_value: GaugeVec,
    pub(crate) upstream: UpstreamMetrics,
}

/// How VMs are watched.
#[derive(Clone, Debug)]
struct Checks {
    health: IntCounterVec,
    ejections: IntCounterVec,
    quarantine: IntGaugeVec,
    idle: IntCounterVec,
}

/// One pool's time series.
#[derive(Debug)]
pub(crate) struct PoolSeries {
    pool: String,
    queue_depth: IntGaugeVec,
    pub(crate) queue_wait: Histogram,
    pub(crate) desired: IntGauge,
    /// 1 while demand is, or was a moment ago, a sudden one.
    pub(crate) panic: IntGauge,
    pub(crate) starts_waiting: IntGauge,
    start_duration: HistogramVec,
    /// Ordered.
    pub(crate) resets: IntCounter,
    /// From the order to READY.
    pub(crate) reset_duration: Histogram,
    starting: IntGauge,
    ready: IntGauge,
    draining: IntGauge,
    stopping: IntGauge,
    exits: IntCounterVec,
    rollouts: IntCounterVec,
    checks: Checks,
    pub(crate) quarantine_entries: IntGauge,
    shed: IntCounterVec,
}

/// Those of one pool's signal.
#[derive(Debug)]
pub(crate) struct SignalSeries {
    pool: String,
    scrapes: IntCounterVec,
    pub(crate) value: Gauge,
}

impl SignalSeries {
    /// A VM was asked.
    pub(crate) fn scraped(&self, result: &str) {
        self.scrapes.with_label_values(&[self.pool.as_str(), result]).inc();
    }
}

impl Checks {
    fn register(registry: &Registry) -> prometheus::Result<Self> {
        let counter = |name, help, labels: &[&str]| IntCounterVec::new(Opts::new(name, help), labels);
        let health = counter(
            "weir_health_checks_total",
            "Times that a VM in service was asked whether it works.",
            &["pool", "result"],
        )?;
        let ejections = counter(
            "weir_vm_ejections_total",
            "VMs that were taken out of service because they did not work.",
            &["pool", "reason"],
        )?;
        let suspects = "Requests that are suspected of killing VMs, those included that are refused for it.";
        let quarantine = IntGaugeVec::new(Opts::new("weir_quarantine_entries", suspects), &["pool"])?;
        let idle = counter(
            "weir_vm_idle_checks_total",
            "Times that a VM without requests was asked what its guest does.",
            &["pool", "result"],
        )?;
        for family in [&health, &ejections, &idle] {
            registry.register(Box::new(family.clone()))?;
        }
        registry.register(Box::new(quarantine.clone()))?;
        Ok(Self { health, ejections, quarantine, idle })
    }
}

impl PoolMetrics {
    /// Makes the families and registers them.
    ///
    /// # Errors
    /// If `registry` has one of them already.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let gauge = |name, help, labels: &[&str]| IntGaugeVec::new(Opts::new(name, help), labels);
        let counter = |name, help, labels: &[&str]| IntCounterVec::new(Opts::new(name, help), labels);
        let histogram = |name, help, labels: &[&str]| {
            HistogramVec::new(HistogramOpts::new(name, help).buckets(SECONDS.to_vec()), labels)
        };
        let metrics = Self {
            checks: Checks::register(registry)?,
            upstream: UpstreamMetrics::register(registry)?,
            queue_depth: gauge("weir_queue_depth", "Requests that wait for a VM.", &["pool", "class"])?,
            queue_wait: histogram(
                "weir_queue_wait_seconds",
                "How long requests waited for a VM, those included that waited in vain.",
                &["pool"],
            )?,
            shed: counter("weir_requests_shed_total", "Requests that got no VM.", &["reason"])?,
            instances: gauge("weir_vm_instances", "VMs that exist.", &["pool", "state"])?,
            desired: gauge("weir_autoscaler_desired_instances", "VMs that the pool wants.", &["pool"])?,
            panic: gauge("weir_autoscaler_panic", "Whether the pool meets a sudden demand.", &["pool"])?,
            starts_waiting: gauge(
                "weir_vm_starts_waiting",
                "VMs that are wanted and wait for their turn to start.",
                &["pool"],
            )?,
            start_duration: histogram(
                "weir_vm_start_duration_seconds",
                "From the order to start a VM to its READY.",
                &["pool", "kind"],
            )?,
            resets: counter(
                "weir_vm_resets_total",
                "Times that a VM had to go back to its snapshot.",
                &["pool"],
            )?,
            reset_duration: histogram(
                "weir_vm_reset_duration_seconds",
                "From the order to go back to the snapshot to READY.",
                &["pool"],
            )?,
            rollouts: counter(
                "weir_rollouts_total",
                "Restarts of pools, by how they ended.",
                &["pool", "result"],
            )?,
            signal_scrapes: counter(
                "weir_signal_scrapes_total",
                "Times that a VM was asked for its pool's signal.",
                &["pool", "result"],
            )?,
            signal_value: GaugeVec::new(
                Opts::new("weir_signal_value", "What all VMs of the pool have told of its signal, added up."),
                &["pool"],
            )?,
            exits: counter("weir_vm_exits_total", "VMs that ended or did not start.", &["pool", "reason"])?,
        };
        metrics.register_with(registry)?;
        Ok(metrics)
    }

    fn register_with(&self, registry: &Registry) -> prometheus::Result<()> {
        registry.register(Box::new(self.queue_depth.clone()))?;
        registry.register(Box::new(self.queue_wait.clone()))?;
        registry.register(Box::new(self.shed.clone()))?;
        registry.register(Box::new(self.instances.clone()))?;
        registry.register(Box::new(self.desired.clone()))?;
        registry.register(Box::new(self.panic.clone()))?;
        registry.register(Box::new(self.starts_waiting.clone()))?;
        registry.register(Box::new(self.start_duration.clone()))?;
        registry.register(Box::new(self.resets.clone()))?;
        registry.register(Box::new(self.reset_duration.clone()))?;
        registry.register(Box::new(self.rollouts.clone()))?;
        registry.register(Box::new(self.signal_scrapes.clone()))?;
        registry.register(Box::new(self.signal_value.clone()))?;
        registry.register(Box::new(self.exits.clone()))
    }

    /// The series of a pool that follows a signal.
    pub(crate) fn signal(&self, pool: &str) -> SignalSeries {
        let value = self.signal_value.with_label_values(&[pool]);
        SignalSeries { pool: pool.to_owned(), scrapes: self.signal_scrapes.clone(), value }
    }

    pub(crate) fn series(&self, pool: &str) -> PoolSeries {
        let instances = |state| self.instances.with_label_values(&[pool, state]);
        PoolSeries {
            pool: pool.to_owned(),
            queue_depth: self.queue_depth.clone(),
            queue_wait: self.queue_wait.with_label_values(&[pool]),
            desired: self.desired.with_label_values(&[pool]),
            panic: self.panic.with_label_values(&[pool]),
            starts_waiting: self.starts_waiting.with_label_values(&[pool]),
            start_duration: self.start_duration.clone(),
            resets: self.resets.with_label_values(&[pool]),
            reset_duration: self.reset_duration.with_label_values(&[pool]),
            starting: instances("starting"),
            ready: instances("ready"),
            draining: instances("draining"),
            stopping: instances("stopping"),
            exits: self.exits.clone(),
            rollouts: self.rollouts.clone(),
            quarantine_entries: self.checks.quarantine.with_label_values(&[pool]),
            checks: self.checks.clone(),
            shed: self.shed.clone(),
        }
    }
}

impl PoolSeries {
    /// A VM became READY, `took` after the order to start it.
    pub(crate) fn started(&self, kind: StartKind, took: Duration) {
        let series = self.start_duration.with_label_values(&[self.pool.as_str(), kind.label()]);
        series.observe(took.as_secs_f64());
    }

    /// Requests of the class that wait.
    pub(crate) fn queue_depth(&self, class: &str) -> IntGauge {
        self.queue_depth.with_label_values(&[self.pool.as_str(), class])
    }

    pub(crate) fn exited(&self, reason: &str) {
        self.exits.with_label_values(&[self.pool.as_str(), reason]).inc();
    }

    /// A restart has ended so.
    pub(crate) fn rolled_out(&self, result: &str) {
        self.rollouts.with_label_values(&[self.pool.as_str(), result]).inc();
    }

    pub(crate) fn health_checked(&self, result: &str) {
        self.checks.health.with_label_values(&[self.pool.as_str(), result]).inc();
    }

    pub(crate) fn ejected(&self, reason: &str) {
        self.checks.ejections.with_label_values(&[self.pool.as_str(), reason]).inc();
    }

    pub(crate) fn idle_checked(&self, found: Found) {
        self.checks.idle.with_label_values(&[self.pool.as_str(), found.label()]).inc();
    }

    pub(crate) fn shed(&self, reason: &str) {
        self.shed.with_label_values(&[reason]).inc();
    }

    /// Nobody looks after the pool any more.
    pub(crate) fn rest(&self) {
        self.set_instances(Instances::default());
        [&self.desired, &self.panic, &self.starts_waiting].into_iter().for_each(|gauge| gauge.set(0));
    }

    pub(crate) fn set_instances(&self, now: Instances) {
        self.starting.set(now.starting.into());
        self.ready.set(now.ready.into());
        self.draining.set(now.draining.into());
        self.stopping.set(now.stopping.into());
    }
}
