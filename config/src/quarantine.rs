//! `[pool.NAME.quarantine]`: when a request is taken for what kills VMs.

use crate::model::Quarantine;
use crate::reader::Reader;
use crate::values::{duration, integer};

pub(crate) fn read(table: &mut Reader<'_>) -> Option<Quarantine> {
    let defaults = Quarantine::default();
    let kills = table.read("kills", integer(1..=100)).or(defaults.kills);
    let duration = table.read("duration", duration).or(defaults.duration);
    Some(Quarantine { kills: kills?.value, duration: duration?.value })
}
