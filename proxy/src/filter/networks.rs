//! Sets of networks that an address is looked up in.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use ipnetwork::IpNetwork;

/// A set of addresses, made of networks that may overlap. A look-up is a binary search: it costs 100,000 networks no more
/// than twice what it costs 300.
#[derive(Debug, Default)]
pub(crate) struct Networks {
    v4: Box<[RangeInclusive<Ipv4Addr>]>,
    v6: Box<[RangeInclusive<Ipv6Addr>]>,
}

impl Networks {
    pub(crate) fn new(networks: &[IpNetwork]) -> Self {
        let v4 = networks.iter().filter_map(|network| match network {
            IpNetwork::V4(network) => Some(network.network()..=network.broadcast()),
            IpNetwork::V6(_) => None,
        });
        let v6 = networks.iter().filter_map(|network| match network {
            IpNetwork::V6(network) => Some(network.network()..=network.broadcast()),
            IpNetwork::V4(_) => None,
        });
        Self { v4: merged(v4.collect()), v6: merged(v6.collect()) }
    }

    /// An IPv4 address that is written as IPv6 is an IPv4 address.
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        match address.to_canonical() {
            IpAddr::V4(address) => is_within(&self.v4, &address),
            IpAddr::V6(address) => is_within(&self.v6, &address),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }
}

/// In order, and those that overlap as one.
fn merged<A: Ord + Copy>(mut ranges: Vec<RangeInclusive<A>>) -> Box<[RangeInclusive<A>]> {
    ranges.sort_by_key(|range| *range.start());
    let mut merged: Vec<RangeInclusive<A>> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match merged.last_mut() {
            Some(last) if range.start() <= last.end() => {
                *last = *last.start()..=*last.end().max(range.end());
            }
            _ => merged.push(range),
        }
    }
    merged.into()
}

fn is_within<A: Ord>(ranges: &[RangeInclusive<A>], address: &A) -> bool {
    let behind = ranges.partition_point(|range| range.start() <= address);
    behind.checked_sub(1).is_some_and(|index| ranges[index].contains(address))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Addresses and networks of a small space, so that they meet.
    fn address() -> impl Strategy<Value = IpAddr> {
        prop_oneof![
            (0_u32..64).prop_map(|low| IpAddr::V4((0x0a00_0000 | low).into())),
            (0_u128..64).prop_map(|low| IpAddr::V6((0x2001_0db8_u128 << 96 | low).into())),
        ]
    }

    fn network() -> impl Strategy<Value = IpNetwork> {
        (address(), 0_u8..=7).prop_map(|(address, free)| {
            let bits = if address.is_ipv4() { 32 } else { 128 };
            let network = IpNetwork::new(address, bits - free).unwrap();
            IpNetwork::new(network.network(), network.prefix()).unwrap()
        })
    }

    proptest! {
        #[test]
        fn a_set_has_what_one_of_its_networks_has(
            networks in proptest::collection::vec(network(), 0..12),
            address in address(),
        ) {
            let expected = networks.iter().any(|network| network.contains(address));
            prop_assert_eq!(Networks::new(&networks).contains(address), expected);
        }
    }

    #[test]
    fn ends_families_and_mapped_addresses() {
        let set =
            |text: &[&str]| Networks::new(&text.iter().map(|text| text.parse().unwrap()).collect::<Vec<_>>());
        for (networks, address, expected) in [
            (&["0.0.0.0/0"][..], "255.255.255.255", true),
            (&["0.0.0.0/0"], "::1", false),
            (&["::/0"], "1.2.3.4", false),
            (&["::/0"], "::ffff:1.2.3.4", false),
            (&["1.2.3.0/24"], "::ffff:1.2.3.4", true),
            (&["10.0.0.0/8", "10.1.0.0/16"], "10.200.0.1", true),
            (&["10.0.0.1/32"], "10.0.0.0", false),
            (&[], "10.0.0.1", false),
        ] {
            assert_eq!(set(networks).contains(address.parse().unwrap()), expected, "{networks:?} {address}");
        }
    }
}
