//! `[pool.NAME.breaker]`: when a pool gets no requests for a while.

use crate::model::{Breaker, Thousandths};
use crate::reader::Reader;
use crate::values::{boolean, decimal, duration, integer};

pub(crate) fn read(table: &mut Reader<'_>) -> Option<Breaker> {
    let defaults = Breaker::default();
    let failures = table.read("failures", integer(1..=10_000)).or(defaults.failures);
    let ratio = table.read("ratio", decimal(Thousandths(0)..=Thousandths(1000))).or(defaults.ratio);
    let window = table.read("window", duration).or(defaults.window);
    let open_for = table.read("open_for", duration).or(defaults.open_for);
    let half_open = table.read("half_open", integer(1..=1000)).or(defaults.half_open);
    let server_errors = table.read("server_errors", boolean).or(defaults.server_errors);
    let max_in_flight = table.read("max_in_flight", integer(1..=1_000_000)).optional();
    Some(Breaker {
        failures: failures?.value,
        ratio: ratio?.value,
        window: window?.value,
        open_for: open_for?.value,
        half_open: half_open?.value,
        server_errors: server_errors?.value,
        max_in_flight: max_in_flight?.map(|max| max.value),
    })
}
