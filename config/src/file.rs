//! Keys that name a file which is read with the configuration.

use std::error::Error as _;

use toml::de::DeValue;

use crate::model::{Content, FileOf};
use crate::values::file;

/// The file that the key names; the error is a message.
pub(crate) fn read<T: Content>(value: &DeValue<'_>) -> Result<FileOf<T>, String> {
    FileOf::read(&file(value)?).map_err(|error| match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    })
}
