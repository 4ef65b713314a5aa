//! Single TOML values to Rust values; an error is the message for the value's key.

use std::fmt::Display;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use ipnetwork::IpNetwork;
use toml::de::DeValue;

use crate::decimal::Thousandths;
use crate::key::suggestion;
use crate::units::{DURATION_UNITS, DurationText, SIZE_UNITS, SizeText, parse_duration, parse_size};

/// No duration in a configuration is longer: it must never overflow a clock it is added to.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// A value's type with its article, for "found …".
pub(crate) fn found(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}

/// A string that may become a C string or part of one.
pub(crate) fn string(value: &DeValue<'_>) -> Result<String, String> {
    let text = value.as_str().ok_or_else(|| format!("expected a string, found {}", found(value)))?;
    if text.contains('\0') {
        return Err("must not contain a NUL character".to_owned());
    }
    Ok(text.to_owned())
}

/// An integer within `range`.
pub(crate) fn integer<T>(range: RangeInclusive<T>) -> impl Fn(&DeValue<'_>) -> Result<T, String>
where
    T: TryFrom<i128> + PartialOrd + Display,
{
    move |value| {
        let integer =
            value.as_integer().ok_or_else(|| format!("expected an integer, found {}", found(value)))?;
        // An integer of more than 128 bits is outside of every range, too.
        let parsed = i128::from_str_radix(integer.as_str(), integer.radix()).ok();
        parsed
            .and_then(|n| T::try_from(n).ok())
            .filter(|n| range.contains(n))
            .ok_or_else(|| format!("must be from {} to {}, is {integer}", range.start(), range.end()))
    }
}

/// A decimal number within `range`, such as `2` or `0.5`. Read from the text: a binary fraction would have to be rounded
/// first.
pub(crate) fn decimal(
    range: RangeInclusive<Thousandths>,
) -> impl Fn(&DeValue<'_>) -> Result<Thousandths, String> {
    move |value| {
        let text = match value {
            DeValue::Integer(integer) if integer.radix() == 10 => integer.as_str(),
            DeValue::Float(float) => float.as_str(),
            DeValue::Integer(_) => return Err("must be a decimal number".to_owned()),
            other => return Err(format!("expected a number such as 0.5, found {}", found(other))),
        };
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        let fraction = fraction.trim_end_matches('0');
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(whole.strip_prefix(['+', '-']).unwrap_or(whole)) || !digits(fraction) {
            return Err(format!("must be a number such as 0.5, is {text}"));
        }
        if fraction.len() > 3 {
            return Err(format!("must have at most three decimals, is {text}"));
        }
        // What is too long for 64 bits is too large, and what is negative too small.
        let parsed = format!("{whole}{fraction:0<3}").parse().map(Thousandths).ok();
        parsed
            .filter(|number| range.contains(number))
            .ok_or_else(|| format!("must be from {} to {}, is {text}", range.start(), range.end()))
    }
}

/// One of a few words.
pub(crate) fn choice<T: Copy>(
    choices: &'static [(&'static str, T)],
) -> impl Fn(&DeValue<'_>) -> Result<T, String> {
    move |value| {
        let text = string(value)?;
        if let Some((_, chosen)) = choices.iter().find(|(word, _)| *word == text) {
            return Ok(*chosen);
        }
        let words: Vec<_> = choices.iter().map(|(word, _)| format!("{word:?}")).collect();
        let (last, others) = words.split_last().expect("a choice has words to choose from");
        let near = suggestion(&text, choices.iter().map(|(word, _)| *word));
        Err(format!("must be {} or {last}, is {text:?}{near}", others.join(", ")))
    }
}

pub(crate) fn boolean(value: &DeValue<'_>) -> Result<bool, String> {
    value.as_bool().ok_or_else(|| format!("expected a boolean, found {}", found(value)))
}

/// A duration that is not zero.
pub(crate) fn duration(value: &DeValue<'_>) -> Result<Duration, String> {
    let text = value.as_str().ok_or_else(|| {
        format!(r#"expected a duration such as "30s", found {}; units are {DURATION_UNITS}"#, found(value))
    })?;
    match parse_duration(text).map_err(|error| error.to_string())? {
        Duration::ZERO => Err("must be longer than zero".to_owned()),
        duration if duration > LONGEST => Err(format!("must not be longer than {}", DurationText(LONGEST))),
        duration => Ok(duration),
    }
}

/// A number of bytes.
pub(crate) fn size(value: &DeValue<'_>) -> Result<u64, String> {
    let text = value.as_str().ok_or_else(|| {
        let found = found(value);
        format!(r#"expected a size such as "16MiB", found {found}; units are {SIZE_UNITS}"#)
    })?;
    parse_size(text).map_err(|error| error.to_string())
}

/// A number of bytes within `range`.
pub(crate) fn size_within(range: RangeInclusive<u64>) -> impl Fn(&DeValue<'_>) -> Result<u64, String> {
    move |value| {
        let bytes = size(value)?;
        if !range.contains(&bytes) {
            let [smallest, largest, bytes] = [*range.start(), *range.end(), bytes].map(SizeText);
            return Err(format!("must be from {smallest} to {largest}, is {bytes}"));
        }
        Ok(bytes)
    }
}

/// A directory's path; whether it is there is not asked.
pub(crate) fn directory(value: &DeValue<'_>) -> Result<PathBuf, String> {
    path(value)
}

/// A file's path; whether it is there is not asked.
pub(crate) fn file(value: &DeValue<'_>) -> Result<PathBuf, String> {
    path(value)
}

fn path(value: &DeValue<'_>) -> Result<PathBuf, String> {
    let text = string(value)?;
    if text.is_empty() {
        return Err("must not be empty".to_owned());
    }
    Ok(text.into())
}

/// An IP address with a port.
pub(crate) fn socket_address(value: &DeValue<'_>) -> Result<SocketAddr, String> {
    let text = string(value)?;
    text.parse().map_err(|_| {
        format!(r#"{text:?} is no IP address with a port, such as "0.0.0.0:8080" or "[::]:8080""#)
    })
}

/// A network, or an address, which is one of its own.
pub(crate) fn network(value: &DeValue<'_>) -> Result<IpNetwork, String> {
    parse_network(&string(value)?)
}

/// As [`network`]; the error is a message.
pub(crate) fn parse_network(text: &str) -> Result<IpNetwork, String> {
    let network: IpNetwork = text.parse().map_err(|_| {
        format!(r#"{text:?} is no address and no network such as "192.0.2.0/24" or "2001:db8::/32""#)
    })?;
    if network.ip() != network.network() {
        let (first, prefix) = (network.network(), network.prefix());
        return Err(format!("{network} is an address within a network, did you mean \"{first}/{prefix}\"?"));
    }
    match network {
        // Clients' addresses are compared as IPv4 then.
        IpNetwork::V6(v6) if v6.ip().to_ipv4_mapped().is_some() => {
            Err(format!("{network} has IPv4 addresses written as IPv6, write them as IPv4"))
        }
        other => Ok(other),
    }
}
