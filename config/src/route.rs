//! `[[route]]`: which requests go to which pool.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use toml::de::DeValue;

use crate::key::{Located, Place};
use crate::model::{Class, HostPattern, Route};
use crate::path;
use crate::reader::Reader;
use crate::values::string;

/// One `[[route]]` as far as it is valid.
pub(crate) struct RouteSection {
    pub(crate) place: Place,
    /// `None`: invalid. `Some(None)`: left out.
    pub(crate) name: Option<Option<Located<String>>>,
    pub(crate) host: Option<Located<HostPattern>>,
    /// In normal form.
    pub(crate) path: Option<Located<String>>,
    pub(crate) pool: Option<Located<String>>,
    pub(crate) class: Option<Located<String>>,
}

impl RouteSection {
    pub(crate) fn read(table: &mut Reader<'_>) -> Self {
        Self {
            place: table.place().clone(),
            name: table.read("name", string).check(|name| check_name(name)).optional(),
            host: table.read("host", host_pattern).or(HostPattern::Any),
            path: table.read("path", |value| path::normalize(&string(value)?)).or("/".to_owned()),
            pool: table.read("pool", string).required(),
            class: table.read("class", string).or(Class::DEFAULT.to_owned()),
        }
    }

    /// A route without a name is named by what it matches, such as `example.org/api` or `*/`. That cannot clash:
    /// no two routes match the same, and a name that was written has no slash.
    pub(crate) fn into_route(self, classes: &BTreeMap<String, Arc<Class>>) -> Option<Route> {
        let (host, path) = (self.host?.value, self.path?.value);
        let name = self.name?.map_or_else(|| format!("{}{path}", host_text(&host)), |name| name.value);
        let class = Arc::clone(classes.get(&self.class?.value)?);
        Some(Route { name, host, path, pool: self.pool?.value, class })
    }
}

/// A pattern as it is written.
pub(crate) fn host_text(host: &HostPattern) -> String {
    match host {
        HostPattern::Exact(host) => host.clone(),
        HostPattern::Suffix(suffix) => format!("*.{suffix}"),
        HostPattern::Any => "*".to_owned(),
    }
}

fn check_name(name: &str) -> Result<(), String> {
    let valid = (1..=63).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    if valid {
        return Ok(());
    }
    Err(r#"a route's name has 1 to 63 characters of a-z, A-Z, 0-9, ".", "_" and "-""#.to_owned())
}

fn host_pattern(value: &DeValue<'_>) -> Result<HostPattern, String> {
    let text = string(value)?.to_ascii_lowercase();
    if text.is_empty() || text == "*" {
        return Err("leave host out to match any host".to_owned());
    }
    if !text.is_ascii() {
        return Err(format!(r#"{text:?} is not ASCII; write its "xn--" form"#));
    }
    if let Some(inner) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'))
        && let Ok(address) = inner.parse::<Ipv6Addr>()
    {
        return Ok(HostPattern::Exact(format!("[{address}]")));
    }
    let suffix = text.strip_prefix("*.");
    if !is_host_name(suffix.unwrap_or(&text)) {
        return Err(format!(
            r#"{text:?} is no host such as "example.org" or "*.example.org", without a port"#
        ));
    }
    match suffix {
        Some(suffix) if suffix.parse::<Ipv4Addr>().is_ok() => {
            Err(format!("{text:?}: an address has no names below it"))
        }
        Some(suffix) => Ok(HostPattern::Suffix(suffix.to_owned())),
        None => Ok(HostPattern::Exact(text)),
    }
}

/// RFC 1123, and the underscore, which browsers send and DNS carries. IPv4 addresses are among these.
fn is_host_name(text: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(is_label)
}
