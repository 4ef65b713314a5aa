//! `[pool.NAME]` with `kind = "external"`: servers outside instead of VMs.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use toml::de::DeValue;

use crate::checks::not_less;
use crate::model::{External, Isolation, Kind, Pool, Quarantine, Scale, ServerAddress, VmLimits};
use crate::reader::Reader;
use crate::units::DurationText;
use crate::values::{duration, integer, string};
use crate::{breaker, health, protocol, queue, retry};

/// Keys that say how VMs are made and kept.
const OF_VMS: &[&str] = &[
    "image",
    "port",
    "vcpus",
    "memory",
    "env",
    "args",
    "weight",
    "isolation",
    "start_timeout",
    "scale",
    "quarantine",
    "signal",
    "limits",
];
/// Keys that only these pools have.
const OF_SERVERS: &[&str] = &["addresses", "resolve"];
/// A pool has no more addresses.
const ADDRESSES: usize = 1024;
/// Requests in flight per server: as many as one has connections from one address, nearly.
const LIMITS: RangeInclusive<u32> = 1..=65_536;
/// Names are not looked up more often.
const SHORTEST: Duration = Duration::from_secs(1);
/// Longest host name, bytes (RFC 1035 §2.3.4, as text).
const LONGEST_NAME: usize = 253;
/// Longest part of one between dots, bytes.
const LONGEST_LABEL: usize = 63;

/// Reports what only servers have, in a pool of VMs.
pub(crate) fn refuse(table: &mut Reader<'_>) {
    table.refuse(OF_SERVERS, r#"is only for kind = "external": a VM has its address from host.network"#);
}

/// A pool called `name`, if all of it is valid.
pub(crate) fn read(name: Option<String>, table: &mut Reader<'_>) -> Option<Pool> {
    table.refuse(OF_VMS, r#"is for VMs, and a pool with kind = "external" has none"#);
    let addresses = table.strings("addresses", server_address).check(|all| distinct(all)).required();
    let resolve = table.read("resolve", duration).check(not_often).or(Duration::from_secs(30));
    let soft_limit = table.read("soft_limit", integer(LIMITS)).or(1024);
    let hard_limit = table.read("hard_limit", integer(LIMITS)).or(1024);
    not_less(&hard_limit, &soft_limit, "soft_limit", table.sink());
    let queue = table.table("queue", queue::read).flatten();
    let health = table.table("health", health::read).flatten();
    let retry = table.table("retry", retry::read).flatten();
    let breaker = table.optional_table("breaker", breaker::read);
    let protocol = protocol::read(table);
    protocol::check_questions(&protocol, health.as_ref(), false, table.sink());

    let external = External { addresses: addresses?.value, resolve: resolve?.value };
    Some(Pool {
        name: name?,
        kind: Kind::External(external),
        soft_limit: soft_limit?.value,
        hard_limit: hard_limit?.value,
        queue: queue?,
        health: health?,
        retry: retry?,
        breaker: breaker?,
        protocol: protocol?.value,
        image: String::new(),
        port: 0,
        vcpus: 0,
        memory: 0,
        env: BTreeMap::new(),
        args: Vec::new(),
        weight: 1,
        isolation: Isolation::Vm,
        start_timeout: Duration::ZERO,
        scale: Scale { max: 0, ..Scale::default() },
        quarantine: Quarantine::default(),
        signal: None,
        limits: VmLimits::default(),
    })
}

/// An IP address, or a name, with a port.
fn server_address(value: &DeValue<'_>) -> Result<ServerAddress, String> {
    let text = string(value)?;
    let address = match text.parse::<SocketAddr>() {
        Ok(address) => ServerAddress::Ip(address),
        Err(_) => named(&text)?,
    };
    match &address {
        ServerAddress::Ip(ip) if ip.ip().is_unspecified() || ip.ip().is_multicast() => {
            Err(format!("{} is no server's address", ip.ip()))
        }
        ServerAddress::Ip(ip) if ip.port() == 0 => Err(format!("{text:?} has port 0")),
        _ => Ok(address),
    }
}

fn named(text: &str) -> Result<ServerAddress, String> {
    let no_address = || {
        format!(
            r#"{text:?} is no address of a server, such as "127.0.0.1:3000", "[::1]:3000" or "legacy.internal:80""#
        )
    };
    let (name, port) = text.rsplit_once(':').ok_or_else(no_address)?;
    let digits = port.bytes().all(|byte| byte.is_ascii_digit());
    let port = port.parse().ok().filter(|port| digits && *port > 0).ok_or_else(no_address)?;
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    // The last label of a name is no number, or it would be one of the many ways to write an IP address.
    let number = name.rsplit('.').next().is_none_or(|label| label.bytes().all(|byte| byte.is_ascii_digit()));
    if name.len() > LONGEST_NAME || number || !name.split('.').all(is_label) {
        return Err(no_address());
    }
    Ok(ServerAddress::Name { name, port })
}

/// RFC 952 and 1123, and the underscore that many names have.
fn is_label(label: &str) -> bool {
    (1..=LONGEST_LABEL).contains(&label.len())
        && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        && !label.starts_with('-')
        && !label.ends_with('-')
}

fn distinct(addresses: &[ServerAddress]) -> Result<(), String> {
    if addresses.is_empty() {
        return Err("must not be empty: at least one server is needed".to_owned());
    }
    if addresses.len() > ADDRESSES {
        return Err(format!("must have at most {ADDRESSES} addresses, has {}", addresses.len()));
    }
    let mut seen = BTreeSet::new();
    match addresses.iter().find(|address| !seen.insert(*address)) {
        Some(twice) => Err(format!("{twice} is there twice")),
        None => Ok(()),
    }
}

fn not_often(resolve: &Duration) -> Result<(), String> {
    if *resolve < SHORTEST {
        return Err(format!("must not be shorter than {}", DurationText(SHORTEST)));
    }
    Ok(())
}
