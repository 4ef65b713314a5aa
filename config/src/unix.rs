//! A listener's Unix socket: where its file is, and who may open it.

use std::path::PathBuf;

use toml::de::DeValue;

use crate::key::Located;
use crate::model::ListenAddress;
use crate::reader::Reader;
use crate::values::string;

/// Longest path, bytes: with the NUL behind it 108 (unix(7)).
const LONGEST: usize = 107;

/// What stands behind `unix:`.
pub(crate) fn socket_path(path: &str) -> Result<PathBuf, String> {
    // Another process than the one that wrote it would look for it elsewhere.
    if !path.starts_with('/') {
        return Err(format!("{path:?} is no absolute path, such as \"unix:/run/weir.sock\""));
    }
    if path.ends_with('/') || path.split('/').any(|part| part == "." || part == "..") || path.contains("//") {
        return Err(format!("{path:?} is no plain path of a file"));
    }
    if path.len() > LONGEST {
        return Err(format!("a socket's path has at most {LONGEST} bytes, this has {}", path.len()));
    }
    Ok(path.into())
}

/// `mode` of a listener at `address`, if that is valid. `Some(None)`: left out.
pub(crate) fn read_mode(
    table: &mut Reader<'_>,
    address: Option<&ListenAddress>,
) -> Option<Option<Located<u32>>> {
    let mode = table.read("mode", mode).optional()?;
    if let (Some(mode), Some(ListenAddress::Ip(_))) = (&mode, address) {
        table.sink().report(&mode.place, "is for Unix sockets: an IP address has none");
    }
    Some(mode)
}

/// Permission bits as chmod(1) takes them.
fn mode(value: &DeValue<'_>) -> Result<u32, String> {
    let text = string(value)?;
    let octal = (3..=4).contains(&text.len()) && text.bytes().all(|byte| matches!(byte, b'0'..=b'7'));
    let mode = octal.then(|| u32::from_str_radix(&text, 8).ok()).flatten();
    mode.filter(|mode| *mode <= 0o777)
        .ok_or_else(|| format!("{text:?} is no mode from \"0000\" to \"0777\", such as \"0660\""))
}
