//! Lists of networks in files.

use ipnetwork::IpNetwork;

use super::Content;
use crate::lines::lines;
use crate::values::parse_network;

/// `route.filter.block_list`: one network or address a line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlockList(pub Vec<IpNetwork>);

/// Longest network in a list as it may be written, bytes: longer than any that there is.
const LONGEST: usize = 64;

impl Content for BlockList {
    const LARGEST: u64 = 16 << 20;

    fn parse(bytes: &[u8]) -> Result<Self, String> {
        let mut networks = Vec::new();
        for (number, line) in lines(bytes)? {
            let network = line.split('#').next().unwrap_or_default().trim_end();
            if network.len() > LONGEST {
                return Err(format!("line {number}: is too long for an address or a network"));
            }
            networks.push(parse_network(network).map_err(|message| format!("line {number}: {message}"))?);
        }
        Ok(Self(networks))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn mistakes_are_found_in_their_lines() {
        let list = BlockList::parse(b"# bad ones\r\n192.0.2.1 # loud\r\n\r\n2001:db8::/32\n").unwrap();
        assert_eq!(list.0, ["192.0.2.1/32", "2001:db8::/32"].map(|text| text.parse().unwrap()));
        for (text, message) in [
            (
                "10.0.0.0/8\n10.0.0.1/8",
                "line 2: 10.0.0.1/8 is an address within a network, did you mean \"10.0.0.0/8\"?",
            ),
            (
                "a\0",
                r#"line 1: "a\0" is no address and no network such as "192.0.2.0/24" or "2001:db8::/32""#,
            ),
            (&format!("::1\n\n{}", "1".repeat(65)), "line 3: is too long for an address or a network"),
        ] {
            assert_eq!(BlockList::parse(text.as_bytes()), Err(message.to_owned()));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_list_or_a_line_that_is_wrong(bytes: Vec<u8>, text in "([0-9a-f:./]{0,20}[ #]?\r?\n){0,6}") {
            for bytes in [&bytes[..], text.as_bytes()] {
                if let Err(message) = BlockList::parse(bytes) {
                    prop_assert!(message.starts_with("line "), "{}", message);
                }
            }
        }
    }
}
