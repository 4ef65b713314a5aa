//! `route.respond`, `route.redirect` and `route.rewrite`.

use http::StatusCode;
use regex::bytes::{Regex, RegexBuilder};
use toml::de::DeValue;

use crate::fields;
use crate::key::{Located, Place};
use crate::model::{Pattern, Piece, Redirect, Respond, Rewrite};
use crate::path;
use crate::reader::Reader;
use crate::values::{integer, string};

/// Longest body of a fixed answer, bytes.
const LONGEST_BODY: usize = 64 << 10;
/// Longest text that a request's path is put together from, and longest expression, bytes.
const LONGEST_TEXT: usize = 4096;
/// References to groups in a replacement: each may stand for nearly all of a path.
const MOST_REFERENCES: usize = 16;
/// What a compiled expression, and its cache of states, may take, bytes. A pattern of a few hundred characters takes a
/// tenth of that.
const PATTERN_MEMORY: usize = 1 << 20;

pub(crate) fn respond(table: &mut Reader<'_>) -> Option<Located<Respond>> {
    let status = table.read("status", integer(200_u16..=599)).or(200);
    let body = table.read("body", string).check(|body| not_longer(body, LONGEST_BODY)).or(String::new());
    let headers = fields::read(table, "headers");
    let (status, body) = (status?.value, body?);
    if matches!(status, 204 | 205 | 304) && !body.value.is_empty() {
        table.sink().report(&body.place, format!("an answer with status {status} has no body"));
        return None;
    }
    let status = StatusCode::from_u16(status).ok()?;
    let respond = Respond { status, body: body.value, headers: headers? };
    Some(Located { value: respond, place: table.place().clone() })
}

pub(crate) fn redirect(table: &mut Reader<'_>) -> Option<Located<Redirect>> {
    let to = table.read("to", |value| location(&string(value)?)).required();
    let status = table.read("status", redirect_status).or(StatusCode::PERMANENT_REDIRECT);
    let redirect = Redirect { status: status?.value, to: to?.value };
    Some(Located { value: redirect, place: table.place().clone() })
}

pub(crate) fn rewrite(table: &mut Reader<'_>) -> Option<Located<Rewrite>> {
    let prefix = table.read("prefix", |value| path::normalize(&string(value)?)).optional();
    let pattern = table.read("regex", |value| pattern(&string(value)?)).optional();
    let to = table.read("to", |value| printable_path(string(value)?)).optional();
    let sink = table.sink();
    let report = |place: &Place, message: &str| {
        sink.report(place, message);
        None
    };
    let rewrite = match (prefix?, pattern?, to?) {
        (Some(prefix), None, None) => Rewrite::Prefix(prefix.value),
        (None, Some(pattern), Some(to)) => {
            let references = to.value.matches('$').count();
            if references > MOST_REFERENCES {
                let message =
                    format!("must have at most {MOST_REFERENCES} references to groups, has {references}");
                return report(&to.place, &message);
            }
            if let Some(group) = missing_group(&to.value, pattern.value.regex()) {
                return report(&to.place, &format!("the expression has no group {group:?}"));
            }
            Rewrite::Pattern { pattern: pattern.value, to: to.value }
        }
        _ => return report(table.place(), "needs either prefix, or regex and to"),
    };
    Some(Located { value: rewrite, place: table.place().clone() })
}

pub(crate) fn not_longer(text: &str, longest: usize) -> Result<(), String> {
    if text.len() <= longest {
        return Ok(());
    }
    Err(format!("must not be longer than {longest} bytes, is {}", text.len()))
}

fn redirect_status(value: &DeValue<'_>) -> Result<StatusCode, String> {
    let status = integer(300_u16..=399)(value)?;
    if !matches!(status, 301 | 302 | 303 | 307 | 308) {
        return Err(format!("must be 301, 302, 303, 307 or 308, is {status}"));
    }
    StatusCode::from_u16(status).map_err(|error| error.to_string())
}

/// A redirect's location in its pieces.
fn location(text: &str) -> Result<Vec<Piece>, String> {
    not_longer(text, LONGEST_TEXT)?;
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("has a character that no location has, only printable ASCII without blanks".to_owned());
    }
    let absolute = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let safe = match absolute {
        Some(rest) => !rest.is_empty() && !rest.starts_with(['/', '?', '#']) && !starts_with_other(rest),
        None => {
            text.starts_with('/')
                && !text.starts_with("//")
                && !text.starts_with("/{")
                && !text.starts_with("/\\")
        }
    };
    if !safe {
        return Err(format!(
            r#"{text:?} must begin with "https://" or "http://" and a host or {{host}}, or with a slash and a literal path"#
        ));
    }
    pieces(text)
}

/// Whether the authority would come from the request, but not from its host.
fn starts_with_other(rest: &str) -> bool {
    rest.starts_with('{') && !rest.starts_with("{host}")
}

fn pieces(text: &str) -> Result<Vec<Piece>, String> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some((literal, behind)) = rest.split_once('{') {
        let (name, behind) = behind.split_once('}').ok_or_else(|| format!("{text:?} has an open {{"))?;
        if !literal.is_empty() {
            pieces.push(Piece::Text(literal.to_owned()));
        }
        pieces.push(match name {
            "host" => Piece::Host,
            "path" => Piece::Path,
            "query" => Piece::Query,
            _ => return Err(format!("{{{name}}} is unknown, there are {{host}}, {{path}} and {{query}}")),
        });
        rest = behind;
    }
    if !rest.is_empty() {
        pieces.push(Piece::Text(rest.to_owned()));
    }
    Ok(pieces)
}

fn printable_path(text: String) -> Result<String, String> {
    not_longer(&text, LONGEST_TEXT)?;
    let valid =
        text.starts_with('/') && text.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#".contains(&byte));
    if valid { Ok(text) } else { Err(format!("{text:?} is no path of printable ASCII such as \"/v2/$1\"")) }
}

/// Compiles an expression within limits; the error is a message.
pub(crate) fn pattern(text: &str) -> Result<Pattern, String> {
    pattern_within(text, PATTERN_MEMORY)
}

/// As [`pattern`], within so many bytes.
pub(crate) fn pattern_within(text: &str, memory: usize) -> Result<Pattern, String> {
    not_longer(text, LONGEST_TEXT)?;
    let built = RegexBuilder::new(text).size_limit(memory).dfa_size_limit(memory).build();
    built.map(Pattern).map_err(|error| match error {
        // Several lines that show where; the last one says what.
        regex::Error::Syntax(lines) => {
            let reason = lines.lines().last().unwrap_or_default();
            format!("{text:?} is no regular expression: {}", reason.trim_start_matches("error: "))
        }
        regex::Error::CompiledTooBig(limit) => {
            format!("{text:?} takes more than {limit} bytes when compiled")
        }
        other => format!("{text:?} is no regular expression: {other}"),
    })
}

/// The first group that a replacement names and the expression has not. Without this, `$1x`, which is the group `1x`,
/// would silently be nothing.
fn missing_group<'t>(to: &'t str, regex: &Regex) -> Option<&'t str> {
    let mut rest = to;
    while let Some((_, behind)) = rest.split_once('$') {
        if let Some(behind) = behind.strip_prefix('$') {
            rest = behind;
            continue;
        }
        let word = |text: &'t str| {
            let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(text.len());
            text.split_at(end)
        };
        let (group, behind) = match behind.strip_prefix('{') {
            Some(braced) => braced.split_once('}').unwrap_or((braced, "")),
            None => word(behind),
        };
        let known = match group.parse::<usize>() {
            Ok(index) => index < regex.captures_len(),
            Err(_) => regex.capture_names().flatten().any(|name| name == group),
        };
        if !known {
            return Some(group);
        }
        rest = behind;
    }
    None
}
