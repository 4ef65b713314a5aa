//! `[pool.NAME.scale]`: how many VMs a pool has.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::checks::{not_less, not_longer};
use crate::error::Sink;
use crate::key::Located;
use crate::model::{Idle, Scale, Thousandths};
use crate::reader::Reader;
use crate::schedule::{self, ScheduleSection};
use crate::values::{choice, decimal, duration, integer};

/// As good as no limit; a 32-bit number of VMs times this is far from 64 bits.
const LARGEST_RATIO: Thousandths = Thousandths(1_000_000);
/// Below 1, a demand that the VMs are made for would be a sudden one.
const THRESHOLD: RangeInclusive<Thousandths> = Thousandths(1000)..=LARGEST_RATIO;
/// At 1, the number of VMs would never change.
const RATE: RangeInclusive<Thousandths> = Thousandths(1001)..=LARGEST_RATIO;

/// `[pool.NAME.scale]` as far as it is valid.
pub(crate) struct ScaleSection {
    min: Option<Located<u32>>,
    max: Option<Located<u32>>,
    idle_timeout: Option<Located<Duration>>,
    keep_last: Option<Located<Duration>>,
    idle: Option<Located<Idle>>,
    stable_window: Option<Located<Duration>>,
    panic_window: Option<Located<Duration>>,
    panic_threshold: Option<Located<Thousandths>>,
    max_up_rate: Option<Located<Thousandths>>,
    max_down_rate: Option<Located<Thousandths>>,
    schedule: Option<Vec<ScheduleSection>>,
}

impl ScaleSection {
    pub(crate) fn read(table: &mut Reader<'_>) -> Self {
        let defaults = Scale::default();
        let idle_timeout = table.read("idle_timeout", duration).or(defaults.idle_timeout);
        // Where the one is wrong, the other is not to be held against it.
        let keep_last = idle_timeout.as_ref().map(|timeout| timeout.value);
        let section = Self {
            min: table.read("min", integer(0..=u32::MAX)).or(defaults.min),
            max: table.read("max", integer(1..=u32::MAX)).or(defaults.max),
            idle_timeout,
            keep_last: table.read("keep_last", duration).or(keep_last.unwrap_or(Duration::MAX)),
            idle: table
                .read("idle", choice(&[("parked", Idle::Parked), ("unused", Idle::Unused)]))
                .or(defaults.idle),
            stable_window: table.read("stable_window", duration).or(defaults.stable_window),
            panic_window: table.read("panic_window", duration).or(defaults.panic_window),
            panic_threshold: table.read("panic_threshold", decimal(THRESHOLD)).or(defaults.panic_threshold),
            max_up_rate: table.read("max_up_rate", decimal(RATE)).or(defaults.max_up_rate),
            max_down_rate: table.read("max_down_rate", decimal(RATE)).or(defaults.max_down_rate),
            schedule: table.tables("schedule", ScheduleSection::read),
        };
        section.check(table.sink());
        section
    }

    fn check(&self, sink: &Sink) {
        not_less(&self.max, &self.min, "min", sink);
        not_longer(&self.idle_timeout, &self.keep_last, "keep_last", sink);
        not_longer(&self.panic_window, &self.stable_window, "stable_window", sink);
        schedule::check_number(self.schedule.as_deref().unwrap_or_default(), sink);
        let Some(max) = &self.max else { return };
        for min in self.schedule.iter().flatten().filter_map(|schedule| schedule.min.as_ref()) {
            if min.value > max.value {
                let message = format!("{} is more than scale.max, which is {}", min.value, max.value);
                sink.report(&min.place, message);
            }
        }
    }

    /// The most VMs that the pool ever keeps though they are idle.
    pub(crate) fn highest_min(&self) -> u32 {
        let scheduled = self.schedule.iter().flatten().filter_map(|schedule| schedule.min.as_ref());
        scheduled.chain(&self.min).map(|min| min.value).max().unwrap_or(0)
    }

    pub(crate) fn into_scale(self) -> Option<Scale> {
        let schedule = self.schedule?.into_iter().map(ScheduleSection::into_schedule);
        Some(Scale {
            min: self.min?.value,
            max: self.max?.value,
            idle_timeout: self.idle_timeout?.value,
            keep_last: self.keep_last?.value,
            idle: self.idle?.value,
            stable_window: self.stable_window?.value,
            panic_window: self.panic_window?.value,
            panic_threshold: self.panic_threshold?.value,
            max_up_rate: self.max_up_rate?.value,
            max_down_rate: self.max_down_rate?.value,
            schedule: schedule.collect::<Option<_>>()?,
        })
    }
}
