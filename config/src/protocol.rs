//! `pool.NAME.protocol`.

use crate::error::Sink;
use crate::key::Located;
use crate::model::{Health, Protocol};
use crate::reader::Reader;
use crate::values::choice;

const PROTOCOLS: &[(&str, Protocol)] = &[("h1", Protocol::H1), ("h2c", Protocol::H2c)];

pub(crate) fn read(table: &mut Reader<'_>) -> Option<Located<Protocol>> {
    table.read("protocol", choice(PROTOCOLS)).or(Protocol::H1)
}

/// What weir asks for itself, it asks in HTTP/1.
pub(crate) fn check_questions(
    protocol: &Option<Located<Protocol>>,
    health: Option<&Health>,
    asks_signal: bool,
    sink: &Sink,
) {
    let Some(protocol) = protocol.as_ref().filter(|protocol| protocol.value == Protocol::H2c) else { return };
    let asks_health = health.is_some_and(|health| health.path.is_some());
    for (asks, key) in [(asks_health, "health.path"), (asks_signal, "signal")] {
        if asks {
            sink.report(&protocol.place, format!("is not for pools with {key}, which asks in HTTP/1"));
        }
    }
}
