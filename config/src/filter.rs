//! `[route.filter]`: which requests a route lets through.

use ipnetwork::IpNetwork;
use toml::de::DeValue;

use crate::model::Filter;
use crate::reader::Reader;
use crate::values::{integer, size, size_within, string};

/// `None`: some of it is wrong.
pub(crate) fn read(table: &mut Reader<'_>) -> Option<Filter> {
    let allow = table.strings("allow", network).check(|list| some(list)).optional();
    let deny = table.strings("deny", network).or(Vec::new());
    let max_body = table.read("max_body", size).optional();
    let max_header = table.read("max_header", size_within(1 << 10..=32 << 10)).optional();
    let in_flight = table.read("max_in_flight_per_client", integer(1..=1_000_000)).optional();
    Some(Filter {
        allow: allow?.map(|list| list.value),
        deny: deny?.value,
        max_body: max_body?.map(|bytes| bytes.value),
        max_header: max_header?.map(|bytes| bytes.value),
        max_in_flight_per_client: in_flight?.map(|number| number.value),
    })
}

fn some(list: &[IpNetwork]) -> Result<(), String> {
    if list.is_empty() {
        return Err("must name at least one network; leave it out for all".to_owned());
    }
    Ok(())
}

/// A network, or an address, which is one of its own.
pub(crate) fn network(value: &DeValue<'_>) -> Result<IpNetwork, String> {
    let text = string(value)?;
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
