//! How many VMs a pool has: the bounds, and what the number in between follows.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Thousandths;

/// `[pool.NAME.scale]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scale {
    /// VMs kept even when idle.
    pub min: u32,
    /// VMs never exceeded. Neither `min` nor the `min` of any schedule is more.
    pub max: u32,
    /// How long a VM above the minimum may be idle.
    pub idle_timeout: Duration,
    /// How long the last VM may be, if requests come back to it. What is less than `idle_timeout` counts as that.
    pub keep_last: Duration,
    /// What a VM that does something by itself is.
    pub idle: Idle,
    /// The number of VMs follows the demand's average over this time.
    pub stable_window: Duration,
    /// A sudden demand is seen in its average over this time, which is not longer than `stable_window`.
    pub panic_window: Duration,
    /// Demand over `panic_window` that is so many times what the ready VMs are for is a sudden one: 1 to 1000.
    pub panic_threshold: Thousandths,
    /// One decision wants at most so many times the VMs that are ready: more than 1, to 1000.
    pub max_up_rate: Thousandths,
    /// Within one `panic_window` at most this divides the number of VMs: more than 1, to 1000.
    pub max_down_rate: Thousandths,
    /// Minimums for times of the week. Where several hold, and `min` always does, the highest counts.
    pub schedule: Vec<Schedule>,
}

impl Default for Scale {
    fn default() -> Self {
        Self {
            min: 0,
            max: 64,
            idle_timeout: Duration::from_secs(30),
            keep_last: Duration::ZERO,
            idle: Idle::Parked,
            stable_window: Duration::from_secs(30),
            panic_window: Duration::from_secs(3),
            panic_threshold: Thousandths(2_000),
            max_up_rate: Thousandths(1_000_000),
            max_down_rate: Thousandths(2_000),
            schedule: Vec::new(),
        }
    }
}

/// When a VM without requests is idle.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Idle {
    /// When its guest is parked, too, and sends nothing: work in the background keeps it.
    #[default]
    Parked,
    /// At once, whatever its guest does.
    Unused,
}

/// One `[[pool.NAME.scale.schedule]]`: a minimum for a time of the week, in UTC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// Days on which it begins, Monday first; at least one.
    pub days: [bool; 7],
    /// When it begins, minutes since midnight: 0 to 1439.
    pub from: u16,
    /// When it ends, exclusive, minutes since midnight: 0 to 1440, other than `from`. Less than `from`: on the next
    /// day, be that one of `days` or not.
    pub to: u16,
    /// VMs kept meanwhile, not above [`Scale::max`].
    pub min: u32,
}

/// `[pool.NAME.signal]`: a metric by which the guests say themselves how much they have to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signal {
    /// What a GET asks each VM for, as [`Health::path`](super::Health::path).
    pub scrape: String,
    /// Which of the metrics in the answer.
    pub metric: MetricSelector,
    /// The metric's value per VM that scaling aims at: more than 0, to 10^12, which a 64-bit float holds exactly.
    pub target: Thousandths,
    /// Time from one question to the next.
    pub interval: Duration,
    /// How long the answer may take, not longer than `interval`.
    pub timeout: Duration,
    /// Whether a VM's value also lowers its share of new requests.
    pub weights: bool,
}

/// A metric in Prometheus' text format, by its name and some of its labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricSelector {
    /// As it is written.
    pub text: String,
    /// `[a-zA-Z_:][a-zA-Z0-9_:]*`.
    pub name: String,
    /// Values, without escapes, that these labels have; a metric may have others besides. Names are
    /// `[a-zA-Z_][a-zA-Z0-9_]*`.
    pub labels: BTreeMap<String, String>,
}
