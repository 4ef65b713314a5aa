//! The guest that misbehaves as it is told.

use std::io::Write;

use crate::support::one_pool;

/// The probe guest as a file, and a configuration of one pool of it. `arguments` say how it behaves, as in a TOML
/// array; `pool` and `scale` are lines of those tables.
pub(crate) fn probe(arguments: &str, pool: &str, scale: &str) -> (tempfile::NamedTempFile, String) {
    let file = image();
    let config =
        one_pool(&file.path().display().to_string(), &format!("args = [{arguments}]\n{pool}"), scale);
    (file, config)
}

/// The probe guest as a file.
pub(crate) fn image() -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().expect("make a file");
    file.write_all(weir_guest::PROBE).expect("write the image");
    file
}
