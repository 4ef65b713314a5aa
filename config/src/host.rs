//! `[host]`: what all VMs together may take of this machine.

use std::path::PathBuf;
use std::time::Duration;

use ipnetwork::{IpNetwork, Ipv4Network};
use toml::de::DeValue;

use crate::key::Located;
use crate::model::Host;
use crate::reader::Reader;
use crate::values;
use crate::values::{directory, duration, integer, size, string};

/// `[host]` as far as it is valid.
pub(crate) struct HostSection {
    /// Bytes.
    pub(crate) memory: Option<Located<u64>>,
    pub(crate) max_vms: Option<Located<u32>>,
    max_starts: Option<Located<u32>>,
    network: Option<Located<Ipv4Network>>,
    /// `None`: invalid. `Some(None)`: left out.
    snapshots: Option<Option<Located<PathBuf>>>,
    trusted_proxies: Option<Located<Vec<IpNetwork>>>,
    upgrade_timeout: Option<Located<Duration>>,
}

impl HostSection {
    pub(crate) fn read(table: &mut Reader<'_>) -> Self {
        let defaults = Host::default();
        let section = Self {
            memory: table.read("memory", size).or(defaults.memory),
            max_vms: table.read("max_vms", integer(1..=u32::MAX)).or(defaults.max_vms),
            max_starts: table.read("max_starts", integer(1..=4096)).or(defaults.max_starts),
            network: table.read("network", network).or(defaults.network),
            snapshots: table.read("snapshots", directory).optional(),
            trusted_proxies: table.strings("trusted_proxies", values::network).or(Vec::new()),
            upgrade_timeout: table.read("upgrade_timeout", duration).or(defaults.upgrade_timeout),
        };
        if let (Some(network), Some(max_vms)) = (&section.network, &section.max_vms) {
            let links = links(network.value);
            if links < max_vms.value {
                let (value, max_vms) = (network.value, max_vms.value);
                let message = format!("{value} has room for {links} links (/31), max_vms is {max_vms}");
                table.sink().report(&network.place, message);
            }
        }
        section
    }

    pub(crate) fn into_host(self) -> Option<Host> {
        Some(Host {
            memory: self.memory?.value,
            max_vms: self.max_vms?.value,
            max_starts: self.max_starts?.value,
            network: self.network?.value,
            snapshots: self.snapshots?.map(|directory| directory.value),
            trusted_proxies: self.trusted_proxies?.value,
            upgrade_timeout: self.upgrade_timeout?.value,
        })
    }
}

/// Pairs of addresses in a network: one pair per VM.
fn links(network: Ipv4Network) -> u32 {
    network.size() / 2
}

/// An IPv4 network whose addresses the kernel takes for a link.
fn network(value: &DeValue<'_>) -> Result<Ipv4Network, String> {
    let text = string(value)?;
    let parsed = text.contains('/').then(|| text.parse::<IpNetwork>().ok()).flatten();
    let network = match parsed {
        Some(IpNetwork::V4(network)) => network,
        Some(IpNetwork::V6(_)) => return Err(format!("{text} is IPv6; links to VMs are IPv4")),
        None => return Err(format!(r#"{text:?} is no IPv4 network such as "10.88.0.0/16""#)),
    };
    if network.ip() != network.network() {
        let (first, prefix) = (network.network(), network.prefix());
        return Err(format!("{network} is an address within a network, did you mean \"{first}/{prefix}\"?"));
    }
    for (first, prefix, what) in [
        ([0, 0, 0, 0], 8, "\"this network\""),
        ([127, 0, 0, 0], 8, "loopback"),
        ([224, 0, 0, 0], 4, "multicast"),
        ([240, 0, 0, 0], 4, "reserved"),
    ] {
        let special = Ipv4Network::new(first.into(), prefix).expect("the prefixes above are valid");
        if network.overlaps(special) {
            return Err(format!("{network} overlaps {special}, {what} addresses"));
        }
    }
    Ok(network)
}
