//! The keys of `[route.filter]` that limit time.

use std::time::Duration;

use crate::model::Patience;
use crate::reader::Reader;
use crate::values::{duration, size};

/// `None`: some of it is wrong.
pub(crate) fn read(table: &mut Reader<'_>) -> Option<Patience> {
    let defaults = Patience::default();
    let timeout = table.read("timeout", duration).optional();
    let mut or = |key, default: Duration| table.read(key, duration).or(default);
    let body_timeout = or("body_timeout", defaults.body_timeout);
    let write_timeout = or("write_timeout", defaults.write_timeout);
    let tunnel_idle_timeout = or("tunnel_idle_timeout", defaults.tunnel_idle_timeout);
    let min_body_rate = table.read("min_body_rate", size).or(defaults.min_body_rate);
    Some(Patience {
        timeout: timeout?.map(|timeout| timeout.value),
        body_timeout: body_timeout?.value,
        min_body_rate: min_body_rate?.value,
        write_timeout: write_timeout?.value,
        tunnel_idle_timeout: tunnel_idle_timeout?.value,
    })
}
