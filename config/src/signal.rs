//! `[pool.NAME.signal]`: the metric by which guests say how much they have to do.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::checks::not_longer;
use crate::model::{Signal, Thousandths};
use crate::path::check_target;
use crate::reader::Reader;
use crate::selector;
use crate::values::{boolean, decimal, duration, string};

/// To 10^12: values are compared with 64-bit floats, which hold whole numbers up to 2^53 exactly.
const TARGET: RangeInclusive<Thousandths> = Thousandths(1)..=Thousandths(1_000_000_000_000_000);

pub(crate) fn read(table: &mut Reader<'_>) -> Option<Signal> {
    let scrape = table.read("scrape", string).check(|path| check_target(path)).required();
    let metric = table.read("metric", |value| selector::parse(&string(value)?)).required();
    let target = table.read("target", decimal(TARGET)).required();
    let interval = table.read("interval", duration).or(Duration::from_secs(1));
    let timeout = table.read("timeout", duration).or(Duration::from_millis(500));
    let weights = table.read("weights", boolean).or(false);
    not_longer(&timeout, &interval, "interval", table.sink());
    Some(Signal {
        scrape: scrape?.value,
        metric: metric?.value,
        target: target?.value,
        interval: interval?.value,
        timeout: timeout?.value,
        weights: weights?.value,
    })
}
