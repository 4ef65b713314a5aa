//! `[[listener]]` and `[admin]`: sockets in the host's network namespace.

use std::net::{IpAddr, SocketAddr};

use crate::key::Located;
use crate::reader::Reader;
use crate::values::socket_address;

/// Reads either table; both have an address only.
pub(crate) fn read(table: &mut Reader<'_>) -> Option<Located<SocketAddr>> {
    table.read("address", socket_address).required()
}

/// Whether Linux refuses to have both listen at once: the same port on the same or on all addresses. `[::]` takes
/// IPv4 too. Port 0 is a free port each time.
pub(crate) fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    let (host_a, host_b) = (a.ip().to_canonical(), b.ip().to_canonical());
    let covers = |wide: IpAddr, other: IpAddr| wide.is_unspecified() && (wide.is_ipv6() || other.is_ipv4());
    a.port() == b.port()
        && a.port() != 0
        && (host_a == host_b || covers(host_a, host_b) || covers(host_b, host_a))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_overlap_what_they_cover() {
        for (a, b, expected) in [
            ("127.0.0.1:80", "127.0.0.1:80", true),
            ("127.0.0.1:80", "127.0.0.1:81", false),
            ("127.0.0.1:80", "127.0.0.2:80", false),
            ("0.0.0.0:80", "127.0.0.1:80", true),
            ("0.0.0.0:80", "[::1]:80", false),
            ("[::]:80", "[::1]:80", true),
            ("[::]:80", "127.0.0.1:80", true),
            ("[::]:80", "0.0.0.0:80", true),
            ("[::1]:80", "127.0.0.1:80", false),
            ("[::ffff:127.0.0.1]:80", "127.0.0.1:80", true),
            ("127.0.0.1:0", "127.0.0.1:0", false),
        ] {
            let (a, b) = (a.parse().expect("address"), b.parse().expect("address"));
            assert_eq!((overlap(a, b), overlap(b, a)), (expected, expected), "{a} {b}");
        }
    }
}
