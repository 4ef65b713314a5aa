//! `listener.proxy_protocol` and `listener.trusted`.

use ipnetwork::IpNetwork;

use crate::key::Located;
use crate::model::{ListenAddress, ProxyProtocol};
use crate::reader::Reader;
use crate::values::{boolean, network};

/// What a listener says about the PROXY protocol, as far as it is valid.
pub(crate) struct ProxyProtocolSection {
    enabled: Option<Located<bool>>,
    /// `Some(None)`: left out.
    trusted: Option<Option<Located<Vec<IpNetwork>>>>,
}

impl ProxyProtocolSection {
    /// Of a listener at `address`, if that is valid.
    pub(crate) fn read(table: &mut Reader<'_>, address: Option<&ListenAddress>) -> Self {
        let on_unix = matches!(address, Some(ListenAddress::Unix(_)));
        let enabled = table.read("proxy_protocol", boolean).or(false);
        let trusted = table.strings("trusted", network).optional();
        if let (Some(enabled), Some(trusted)) = (&enabled, &trusted) {
            match trusted {
                Some(trusted) if !enabled.value => {
                    table.sink().report(&trusted.place, "has no effect without proxy_protocol");
                }
                Some(trusted) if on_unix => {
                    let message = "is for networks: who may open a Unix socket is trusted";
                    table.sink().report(&trusted.place, message);
                }
                Some(trusted) if trusted.value.is_empty() => {
                    table.sink().report(&trusted.place, "must name at least one network");
                }
                // With an address that is none, whether it is needed is not known.
                None if enabled.value && !on_unix && address.is_some() => {
                    let message = "needs trusted: who may say where a connection comes from";
                    table.sink().report(&enabled.place, message);
                }
                Some(_) | None => {}
            }
        }
        Self { enabled, trusted }
    }

    pub(crate) fn into_proxy_protocol(self) -> Option<ProxyProtocol> {
        Some(match (self.enabled?.value, self.trusted?) {
            (false, _) => ProxyProtocol::Nobody,
            (true, Some(trusted)) => ProxyProtocol::From(trusted.value),
            (true, None) => ProxyProtocol::Everybody,
        })
    }
}
