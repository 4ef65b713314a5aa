//! Addresses of point-to-point links: one /31 (RFC 3021) per VM, out of one configured network.
//!
//! A released link goes to the end of a queue, and links that never were in use come before those in it. So an
//! address is used again only after every other one was: what the kernel still retransmits to a VM that is gone
//! must not find another VM at that address.

use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::net::Ipv4Addr;

use ipnetwork::Ipv4Network;

/// Prefix length of every link.
pub const PREFIX: u8 = 31;

/// An Ethernet address.
pub type Mac = [u8; 6];

/// Why there is no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Not a network whose addresses hosts can have.
    #[error(
        "network {network} holds loopback, multicast or reserved addresses; use a private one such as 10.88.0.0/16"
    )]
    NotUnicast {
        /// What was asked for.
        network: Ipv4Network,
    },
    /// Every link of the network is in use.
    #[error("all {capacity} links of network {network} are in use; a larger network has more")]
    Exhausted {
        /// The network.
        network: Ipv4Network,
        /// How many links it has.
        capacity: u64,
    },
}

/// A point-to-point link between weir and one VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Link {
    /// weir's end, the even address.
    pub host: Ipv4Addr,
    /// The VM's end, the odd address.
    pub guest: Ipv4Addr,
    /// Prefix length of both addresses, always [`PREFIX`].
    pub prefix: u8,
    /// weir's Ethernet address.
    pub host_mac: Mac,
    /// The VM's Ethernet address.
    pub guest_mac: Mac,
}

impl Link {
    /// The link whose lower, even address is `base`.
    fn at(base: u32) -> Self {
        let (host, guest) = (Ipv4Addr::from(base), Ipv4Addr::from(base | 1));
        Self { host, guest, prefix: PREFIX, host_mac: mac_of(host), guest_mac: mac_of(guest) }
    }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.prefix)
    }
}

/// The Ethernet address that belongs to `address`: locally administered (0x02), weir's own 0x57, the address.
fn mac_of(address: Ipv4Addr) -> Mac {
    let [a, b, c, d] = address.octets();
    [0x02, 0x57, a, b, c, d]
}

/// Hands out the links of a network, each to one holder at a time.
#[derive(Debug)]
pub struct AddressPool {
    network: Ipv4Network,
    /// Lower address of the first link.
    first: u32,
    /// Links in the network.
    capacity: u64,
    /// How many links, counted from the first, were in use at least once.
    touched: u64,
    /// Lower addresses of links in use.
    live: HashSet<u32>,
    /// Lower addresses of links that were in use, oldest release first.
    released: VecDeque<u32>,
}

impl AddressPool {
    /// A pool of all links in `network` (its host bits do not matter).
    ///
    /// The first and the last link stay unused where there are more than two: they hold what would be the network
    /// and the broadcast address if `network` were one link, and look like a mistake in a log.
    ///
    /// # Errors
    /// [`AddressError::NotUnicast`] if no host can have such addresses. A network too small for one link is no
    /// error here; [`Self::allocate`] then finds it exhausted.
    pub fn new(network: Ipv4Network) -> Result<Self, AddressError> {
        let (low, high) = (network.network(), network.broadcast());
        let usable = |a: Ipv4Addr| {
            let [first, ..] = a.octets();
            first != 0 && !a.is_loopback() && first < 224
        };
        let holds_loopback = network.contains(Ipv4Addr::LOCALHOST);
        if !usable(low) || !usable(high) || holds_loopback {
            return Err(AddressError::NotUnicast { network });
        }
        let links = u64::from(network.size()) / 2;
        let skip = u32::from(links > 2);
        let first = u32::from(low) + 2 * skip;
        let capacity = links - 2 * u64::from(skip);
        Ok(Self { network, first, capacity, touched: 0, live: HashSet::new(), released: VecDeque::new() })
    }

    /// How many links there are, in use or not.
    pub fn capacity(&self) -> u64 {
        self.capacity
    }

    /// The next link: one that never was in use, in ascending order, else the one released longest ago.
    ///
    /// # Errors
    /// [`AddressError::Exhausted`] if all are in use.
    pub fn allocate(&mut self) -> Result<Link, AddressError> {
        let base = self
            .untouched()
            .or_else(|| self.released.pop_front())
            .ok_or(AddressError::Exhausted { network: self.network, capacity: self.capacity })?;
        self.live.insert(base);
        Ok(Link::at(base))
    }

    /// Takes `link` back. One that is not in use, or of another pool, is ignored: it must not get two holders.
    pub fn release(&mut self, link: Link) {
        let base = u32::from(link.host);
        if self.live.remove(&base) {
            self.released.push_back(base);
        }
    }

    /// Lower address of the first link that never was in use.
    fn untouched(&mut self) -> Option<u32> {
        if self.touched >= self.capacity {
            return None;
        }
        let offset = u32::try_from(2 * self.touched).ok()?;
        self.touched += 1;
        Some(self.first + offset)
    }
}

#[cfg(test)]
mod tests;
