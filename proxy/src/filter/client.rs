//! Who a request comes from, where proxies are in between.
//!
//! Each proxy on the way appends to `X-Forwarded-For` whom it got the request from, so the list is to be believed from
//! its right end as far as the proxies are trusted, and no further: what stands left of the first that is not was
//! written by whoever wanted to.
//!
//! ```text
//!  X-Forwarded-For: 6.6.6.6 (claimed), 198.51.100.7, 10.0.0.2     connection from 10.0.0.1
//!                                      ^ the client  <- trusted <- trusted
//! ```

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, HeaderValue};

use super::networks::Networks;

/// `host.trusted_proxies`, ready for use.
#[derive(Debug, Default)]
pub(crate) struct TrustedProxies(Networks);

impl TrustedProxies {
    pub(crate) fn new(networks: &[ipnetwork::IpNetwork]) -> Self {
        Self(Networks::new(networks))
    }

    /// Whether `peer` is one of them.
    pub(crate) fn contain(&self, peer: IpAddr) -> bool {
        !self.0.is_empty() && self.0.contains(peer.to_canonical())
    }

    /// The client's address, for a connection from `peer`: the first from the right that is no trusted proxy's. Where
    /// the list cannot be read any further, or all are trusted, the last that was seen.
    pub(crate) fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut client = peer.to_canonical();
        if !self.contain(client) {
            return client;
        }
        let lines = headers.get_all("x-forwarded-for").iter().map(HeaderValue::as_bytes);
        // Lines come in order; the header is limited as a whole.
        let lines: Vec<&[u8]> = lines.collect();
        let entries = lines.into_iter().rev().flat_map(|line| line.rsplit(|byte| *byte == b','));
        for entry in entries {
            let Some(address) = parse(entry) else { return client };
            client = address;
            if !self.0.contains(client) {
                break;
            }
        }
        client
    }
}

/// An address, with or without a port, in brackets if it is IPv6 with one.
fn parse(entry: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(entry.trim_ascii()).ok()?;
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    let address =
        text.parse().ok().or_else(|| Some(text.parse::<SocketAddr>().ok()?.ip())).or_else(bracketed);
    address.map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn client(trusted: &[&str], peer: &str, lines: &[&str]) -> String {
        let networks: Vec<_> = trusted.iter().map(|text| text.parse().unwrap()).collect();
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append("x-forwarded-for", line.parse().unwrap());
        }
        TrustedProxies::new(&networks).client(peer.parse().unwrap(), &headers).to_string()
    }

    #[test]
    fn the_list_is_believed_as_far_as_its_writers_are() {
        let trusted = &["10.0.0.0/8", "fd00::/8"][..];
        for (peer, lines, expected) in [
            ("192.0.2.1", &["6.6.6.6"][..], "192.0.2.1"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &["192.0.2.1"], "192.0.2.1"),
            ("::ffff:10.0.0.1", &["::ffff:192.0.2.1"], "192.0.2.1"),
            ("10.0.0.1", &["6.6.6.6, 192.0.2.1, 10.0.0.2"], "192.0.2.1"),
            ("10.0.0.1", &["6.6.6.6", "192.0.2.1", "10.0.0.2,fd00::1"], "192.0.2.1"),
            ("10.0.0.1", &["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
            ("10.0.0.1", &["192.0.2.1:4711"], "192.0.2.1"),
            ("10.0.0.1", &["[2001:db8::1]:4711"], "2001:db8::1"),
            ("10.0.0.1", &["[2001:db8::1]"], "2001:db8::1"),
            ("10.0.0.1", &["192.0.2.1, unknown, 10.0.0.2"], "10.0.0.2"),
            ("10.0.0.1", &["192.0.2.1,"], "10.0.0.1"),
            ("10.0.0.1", &[""], "10.0.0.1"),
        ] {
            assert_eq!(client(trusted, peer, lines), expected, "{peer} {lines:?}");
        }
        assert_eq!(client(&[], "10.0.0.1", &["192.0.2.1"]), "10.0.0.1");
    }

    proptest! {
        // What a client claims of itself stands left of what its first trusted proxy wrote, and changes nothing.
        #[test]
        fn no_claim_is_believed(claim in "[0-9a-f:., \\[\\]]{0,40}") {
            let line = format!("{claim}, 192.0.2.1, 10.0.0.2");
            prop_assert_eq!(client(&["10.0.0.0/8"], "10.0.0.1", &[&line]), "192.0.2.1");
            prop_assert_eq!(client(&["10.0.0.0/8"], "192.0.2.1", &[&claim]), "192.0.2.1");
        }
    }
}
