//! weir's configuration: TOML text to a validated model, all errors at once, each with its key path.
#![forbid(unsafe_code)]

pub mod model;
