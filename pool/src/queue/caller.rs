//! Who waits: what the queue is fair between.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use weir_config::model::Class;

/// Bits of an IPv6 address that one client has: it chooses the others as it likes (RFC 4291, section 2.5.1).
const IPV6_PREFIX: u32 = 64;

/// A request that wants a lease, as far as its place in the queue depends on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Its route's class.
    pub class: Arc<Class>,
    /// Its route, by any number that no other route has.
    pub route: u32,
    /// Who sent it.
    pub client: Client,
    /// Memory that it holds while it waits, bytes: the head of the request.
    pub bytes: u64,
}

/// Who sends requests, as far as an address tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Client(IpAddr);

impl Caller {
    /// Of no route and no client, in the default class.
    pub fn anonymous() -> Self {
        let client = Client(Ipv4Addr::UNSPECIFIED.into());
        Self { class: Arc::default(), route: 0, client, bytes: 0 }
    }
}

impl From<IpAddr> for Client {
    fn from(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V4(address) => address.into(),
            IpAddr::V6(address) => {
                let bits = u128::from(address) >> (128 - IPV6_PREFIX) << (128 - IPV6_PREFIX);
                Ipv6Addr::from(bits).into()
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(address: &str) -> Client {
        address.parse::<IpAddr>().expect("an address").into()
    }

    #[test]
    fn a_client_has_one_ipv4_address_or_a_network_of_ipv6() {
        assert_ne!(client("192.0.2.1"), client("192.0.2.2"));
        assert_eq!(client("192.0.2.1"), client("::ffff:192.0.2.1"));
        assert_eq!(client("2001:db8:0:1::1"), client("2001:db8:0:1:ffff::2"));
        assert_ne!(client("2001:db8:0:1::1"), client("2001:db8:0:2::1"));
    }
}
