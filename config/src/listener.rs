//! `[[listener]]` and `[admin]`: sockets in the host's network namespace.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use toml::de::DeValue;

use crate::key::Located;
use crate::model::{Acme, ListenAddress, Listener};
use crate::proxy_protocol::ProxyProtocolSection;
use crate::reader::Reader;
use crate::tls::TlsSection;
use crate::unix;
use crate::values::{boolean, duration, integer, socket_address, string};

/// One `[[listener]]` as far as it is valid.
pub(crate) struct ListenerSection {
    pub(crate) address: Option<Located<ListenAddress>>,
    mode: Option<Option<Located<u32>>>,
    pub(crate) tls: TlsSection,
    /// `Some(None)`: left out.
    http2: Option<Option<Located<bool>>>,
    header_timeout: Option<Option<Located<Duration>>>,
    idle_timeout: Option<Option<Located<Duration>>>,
    max_connections: Option<Option<Located<u32>>>,
    max_connections_per_client: Option<Option<Located<u32>>>,
    proxy_protocol: ProxyProtocolSection,
    redirect_https: Option<Located<bool>>,
}

impl ListenerSection {
    pub(crate) fn read(table: &mut Reader<'_>) -> Self {
        let tls = TlsSection::read(table);
        let redirect_https = table.read("redirect_https", boolean).or(false);
        if let Some(redirect) = redirect_https.as_ref().filter(|redirect| redirect.value)
            && tls.sources.as_ref().is_some_and(|sources| !sources.is_empty())
        {
            table.sink().report(&redirect.place, "is for a listener without tls");
        }
        let address = table.read("address", listen_address).required();
        let of = address.as_ref().map(|address| &address.value);
        Self {
            mode: unix::read_mode(table, of),
            proxy_protocol: ProxyProtocolSection::read(table, of),
            address,
            tls,
            redirect_https,
            http2: table.read("http2", boolean).optional(),
            header_timeout: table.read("header_timeout", duration).optional(),
            idle_timeout: table.read("idle_timeout", duration).optional(),
            max_connections: table.read("max_connections", integer(1..=10_000_000)).optional(),
            max_connections_per_client: table
                .read("max_connections_per_client", integer(1..=10_000_000))
                .optional(),
        }
    }

    /// `acme`: who issues the certificates that it wants to be obtained.
    pub(crate) fn into_listener(self, acme: Option<&Acme>) -> Option<Listener> {
        let tls = self.tls.into_tls(acme)?;
        let defaults = Listener::on(self.address?.value);
        Some(Listener {
            http2: self.http2?.map_or(tls.is_some(), |http2| http2.value),
            header_timeout: self.header_timeout?.map_or(defaults.header_timeout, |timeout| timeout.value),
            idle_timeout: self.idle_timeout?.map_or(defaults.idle_timeout, |timeout| timeout.value),
            max_connections: self.max_connections?.map_or(defaults.max_connections, |limit| limit.value),
            max_connections_per_client: self.max_connections_per_client?.map(|limit| limit.value),
            redirect_https: self.redirect_https?.value,
            proxy_protocol: self.proxy_protocol.into_proxy_protocol()?,
            mode: self.mode?.map_or(defaults.mode, |mode| mode.value),
            tls,
            ..defaults
        })
    }
}

/// A listener's `address`.
fn listen_address(value: &DeValue<'_>) -> Result<ListenAddress, String> {
    match string(value)?.strip_prefix("unix:") {
        Some(path) => unix::socket_path(path).map(ListenAddress::Unix),
        None => socket_address(value).map(ListenAddress::Ip),
    }
}

/// `admin.address`.
pub(crate) fn read_address(table: &mut Reader<'_>) -> Option<Located<SocketAddr>> {
    table.read("address", socket_address).required()
}

/// Whether Linux refuses to have both listen at once: the same file, or the same port on the same or on all addresses.
pub(crate) fn overlap(a: &ListenAddress, b: &ListenAddress) -> bool {
    match (a, b) {
        (ListenAddress::Ip(a), ListenAddress::Ip(b)) => overlap_ip(*a, *b),
        (a, b) => a == b,
    }
}

/// `[::]` takes IPv4 too. Port 0 is a free port each time.
fn overlap_ip(a: SocketAddr, b: SocketAddr) -> bool {
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
            assert_eq!((overlap_ip(a, b), overlap_ip(b, a)), (expected, expected), "{a} {b}");
        }
    }
}
