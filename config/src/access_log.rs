//! `[access_log]`: where requests are written down.

use crate::decimal::Thousandths;
use crate::model::{AccessLog, LogFormat};
use crate::reader::Reader;
use crate::values::{choice, decimal, file};

const FORMATS: &[(&str, LogFormat)] =
    &[("json", LogFormat::Json), ("common", LogFormat::Common), ("combined", LogFormat::Combined)];

/// `None`: some of it is wrong.
pub(crate) fn read(table: &mut Reader<'_>) -> Option<AccessLog> {
    let defaults = AccessLog::default();
    let format = table.read("format", choice(FORMATS)).or(defaults.format);
    let file = table.read("file", file).optional();
    let sample = table.read("sample", decimal(Thousandths(1)..=Thousandths(1000))).or(defaults.sample);
    Some(AccessLog { format: format?.value, file: file?.map(|path| path.value), sample: sample?.value })
}
