//! `[pool.NAME.queue]`: requests that wait for a VM.

use std::ops::RangeInclusive;

use crate::model::{Overflow, Queue};
use crate::reader::Reader;
use crate::values::{choice, duration, integer, size_within};

/// Least and most room for heads, bytes: at least a large one fits.
const MEMORY: RangeInclusive<u64> = 64 << 10..=4 << 30;

pub(crate) fn read(table: &mut Reader<'_>) -> Option<Queue> {
    let defaults = Queue::default();
    // All keys are read before any failure ends this function, here and in the readers like this one.
    let max_pending = table.read("max_pending", integer(1..=1_000_000)).or(defaults.max_pending);
    let max_memory = table.read("max_memory", size_within(MEMORY)).or(defaults.max_memory);
    let timeout = table.read("timeout", duration).or(defaults.timeout);
    let overflow = choice(&[("wait", Overflow::Wait), ("reject", Overflow::Reject)]);
    let overflow = table.read("overflow", overflow).or(defaults.overflow);
    Some(Queue {
        max_pending: max_pending?.value,
        max_memory: max_memory?.value,
        timeout: timeout?.value,
        overflow: overflow?.value,
    })
}
