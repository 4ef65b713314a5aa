//! Header fields that a configuration writes into messages.

use http::{HeaderName, HeaderValue};

use crate::reader::Reader;

/// They say where a message ends or are for one hop only, so they are weir's own to set: a wrong one would let a
/// client and a VM see different messages in the same bytes.
const NOT_TO_EDIT: &[&str] = &[
    "connection",
    "content-length",
    "host",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// A field's name; the error is a message.
pub(crate) fn name(text: &str) -> Result<HeaderName, String> {
    if NOT_TO_EDIT.contains(&text) {
        return Err("frames messages or is for one hop only, and is weir's to set".to_owned());
    }
    any_name(text)
}

/// A field's name, also of one that is not to be changed; the error is a message.
pub(crate) fn any_name(text: &str) -> Result<HeaderName, String> {
    // In one spelling, so that no table can have a field twice.
    if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err("names of header fields are written in lower case".to_owned());
    }
    text.parse().map_err(|_| format!("{text:?} is no name of a header field"))
}

fn field(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), String> {
    let value = HeaderValue::from_str(value)
        .map_err(|_| "has a character that no header field has, only printable ASCII and tabs".to_owned())?;
    Ok((self::name(name)?, value))
}

/// The table `key` of fields, none if absent. `None`: some of it is wrong.
pub(crate) fn read(table: &mut Reader<'_>, key: &'static str) -> Option<Vec<(HeaderName, HeaderValue)>> {
    let strings = table.named_strings(key, |name, value| field(name, value).map(drop))?;
    strings.iter().map(|(name, value)| field(name, value).ok()).collect()
}
