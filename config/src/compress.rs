//! `route.compress`: which responses are compressed.

use toml::de::DeValue;

use crate::model::{Coding, Compress};
use crate::reader::Reader;
use crate::values::{choice, integer, size, string};

const CODINGS: &[(&str, Coding)] = &[("zstd", Coding::Zstd), ("br", Coding::Brotli), ("gzip", Coding::Gzip)];

/// Text, and what is as good as text. Not `text/event-stream`: its events are short, and late when they are compressed
/// badly somewhere on the way.
const TYPES: &[&str] = &[
    "text/html",
    "text/css",
    "text/plain",
    "text/javascript",
    "text/markdown",
    "text/xml",
    "application/javascript",
    "application/json",
    "application/ld+json",
    "application/manifest+json",
    "application/rss+xml",
    "application/wasm",
    "application/xhtml+xml",
    "application/xml",
    "image/svg+xml",
];

/// Compressed in themselves: it would take time and make them longer.
const COMPRESSED: &[&str] = &[
    "application/gzip",
    "application/zip",
    "application/zstd",
    "application/x-7z-compressed",
    "font/woff",
    "font/woff2",
    "image/avif",
    "image/gif",
    "image/jpeg",
    "image/png",
    "image/webp",
];

const MOST_TYPES: usize = 64;

/// `None`: some of it is wrong.
pub(crate) fn read(table: &mut Reader<'_>) -> Option<Compress> {
    let all = || CODINGS.iter().map(|(_, coding)| *coding).collect();
    let algorithms = table.strings("algorithms", choice(CODINGS)).check(|list| each_once(list)).or(all());
    let min_length = table.read("min_length", size).or(1024);
    let usual = TYPES.iter().map(|text| (*text).to_owned()).collect();
    let types = table.strings("types", media_type).check(|list| check_types(list)).or(usual);
    let level = table.read("level", integer(1..=6)).or(4);
    Some(Compress {
        algorithms: algorithms?.value,
        min_length: min_length?.value,
        types: types?.value,
        level: level?.value,
    })
}

fn each_once(codings: &[Coding]) -> Result<(), String> {
    if codings.is_empty() {
        return Err("must name at least one algorithm".to_owned());
    }
    match codings.iter().enumerate().find(|(index, coding)| codings[..*index].contains(coding)) {
        Some((_, coding)) => Err(format!("names {:?} more than once", coding.name())),
        None => Ok(()),
    }
}

fn check_types(types: &[String]) -> Result<(), String> {
    match types.len() {
        0 => Err("must name at least one media type; leave it out for the usual ones".to_owned()),
        1..=MOST_TYPES => Ok(()),
        number => Err(format!("must name at most {MOST_TYPES} media types, names {number}")),
    }
}

/// `type/subtype` (RFC 9110 §8.3.1), as it is compared: in lower case.
fn media_type(value: &DeValue<'_>) -> Result<String, String> {
    let text = string(value)?.to_ascii_lowercase();
    let is_token = |text: &str| {
        !text.is_empty()
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'+-.^_`|~".contains(&byte))
    };
    match text.split_once('/') {
        Some((kind, subtype)) if is_token(kind) && is_token(subtype) => {}
        _ => return Err(format!(r#"{text:?} is no media type such as "text/html", without parameters"#)),
    }
    if COMPRESSED.contains(&text.as_str()) || text.starts_with("video/") || text.starts_with("audio/") {
        return Err(format!("{text:?} is compressed in itself"));
    }
    if text.starts_with("application/grpc") {
        return Err("gRPC compresses its messages itself".to_owned());
    }
    Ok(text)
}
