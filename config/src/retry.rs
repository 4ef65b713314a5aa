//! `[pool.NAME.retry]`: how many requests may be tried again.

use crate::model::{Retry, Thousandths};
use crate::reader::Reader;
use crate::values::{decimal, integer};

pub(crate) fn read(table: &mut Reader<'_>) -> Option<Retry> {
    let defaults = Retry::default();
    let budget = table.read("budget", decimal(Thousandths(0)..=Thousandths(1000))).or(defaults.budget);
    let floor = table.read("floor", integer(0..=10_000)).or(defaults.floor);
    Some(Retry { budget: budget?.value, floor: floor?.value })
}
