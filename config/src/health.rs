//! `[pool.NAME.health]`: how a VM shows that it works.

use crate::model::Health;
use crate::path::check_target;
use crate::reader::Reader;
use crate::values::{duration, integer, string};

pub(crate) fn read(table: &mut Reader<'_>) -> Option<Health> {
    let defaults = Health::default();
    let path = table.read("path", string).check(|path| check_target(path)).optional();
    let timeout = table.read("timeout", duration).or(defaults.timeout);
    let interval = table.read("interval", duration).or(defaults.interval);
    let unhealthy_after = table.read("unhealthy_after", integer(1..=100)).or(defaults.unhealthy_after);
    Some(Health {
        path: path?.map(|path| path.value),
        timeout: timeout?.value,
        interval: interval?.value,
        unhealthy_after: unhealthy_after?.value,
    })
}
