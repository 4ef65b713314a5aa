//! `listener.hsts`.

use std::time::Duration;

use toml::de::DeValue;

use crate::key::Located;
use crate::model::Hsts;
use crate::reader::Reader;
use crate::units::DurationText;
use crate::values::{boolean, duration};

/// What the list that browsers are shipped with asks for (https://hstspreload.org).
const PRELOAD_LEAST: Duration = Duration::from_secs(365 * 24 * 3600);

/// `Some(None)`: left out.
pub(crate) fn read(table: &mut Reader<'_>) -> Option<Option<Located<Hsts>>> {
    table.optional_table("hsts", |table| {
        let place = table.place().clone();
        let max_age = table.read("max_age", age).required();
        let include_subdomains = table.read("include_subdomains", boolean).or(false);
        let preload = table.read("preload", boolean).or(false);
        let sink = table.sink();
        let preload = preload?;
        let hsts = Hsts {
            max_age: max_age?.value,
            include_subdomains: include_subdomains?.value,
            preload: preload.value,
        };
        if hsts.preload && (hsts.max_age < PRELOAD_LEAST || !hsts.include_subdomains) {
            let least = DurationText(PRELOAD_LEAST);
            let message = format!("needs include_subdomains and a max_age of {least}");
            sink.report(&preload.place, message);
            return None;
        }
        Some(Located { value: hsts, place })
    })
}

/// A duration, or none at all, with which browsers forget.
fn age(value: &DeValue<'_>) -> Result<Duration, String> {
    if value.as_str() == Some("0s") { Ok(Duration::ZERO) } else { duration(value) }
}
