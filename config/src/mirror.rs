//! `[route.mirror]`: copies of requests for another pool.

use crate::error::Sink;
use crate::key::Located;
use crate::model::{Mirror, Protocol, Thousandths};
use crate::pool::PoolSection;
use crate::reader::Reader;
use crate::route::RouteSection;
use crate::values::{boolean, decimal, duration, integer, size_within, string};

/// `route.mirror` as far as it is valid.
pub(crate) struct MirrorSection {
    pub(crate) pool: Located<String>,
    rest: Mirror,
}

/// `None`: some of it is wrong.
pub(crate) fn read(table: &mut Reader<'_>) -> Option<Located<MirrorSection>> {
    let defaults = Mirror::default();
    let pool = table.read("pool", string).required();
    let percent = table.read("percent", decimal(Thousandths(0)..=Thousandths(100_000))).or(defaults.percent);
    let max_in_flight = table.read("max_in_flight", integer(1..=1000)).or(defaults.max_in_flight);
    let max_body = table.read("max_body", size_within(0..=1 << 20)).or(defaults.max_body);
    let timeout = table.read("timeout", duration).or(defaults.timeout);
    let wake = table.read("wake", boolean).or(defaults.wake);
    let rest = Mirror {
        pool: String::new(),
        percent: percent?.value,
        max_in_flight: max_in_flight?.value,
        max_body: max_body?.value,
        timeout: timeout?.value,
        wake: wake?.value,
    };
    Some(Located { value: MirrorSection { pool: pool?, rest }, place: table.place().clone() })
}

impl MirrorSection {
    pub(crate) fn into_mirror(self) -> Mirror {
        Mirror { pool: self.pool.value, ..self.rest }
    }
}

/// Copies go to another pool than what they are copies of, in the one protocol that they are written in.
pub(crate) fn check_pools(routes: &[RouteSection], pools: &[PoolSection], sink: &Sink) {
    for route in routes {
        let Some(mirror) = route.mirror() else { continue };
        let (name, place) = (&mirror.pool.value, &mirror.pool.place);
        if route.pools().any(|own| own.value == *name) {
            sink.report(place, "is one of the route's own pools");
        }
        let pool = pools.iter().find(|pool| pool.name == *name).and_then(|pool| pool.pool.as_ref());
        if pool.is_some_and(|pool| pool.protocol == Protocol::H2c) {
            sink.report(place, format!("pool {name:?} has protocol = \"h2c\", copies are sent in HTTP/1.1"));
        }
    }
}
