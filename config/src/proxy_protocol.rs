//! `listener.proxy_protocol` and `listener.trusted`.

use ipnetwork::IpNetwork;

use crate::key::Located;
use crate::reader::Reader;
use crate::values::{boolean, network};

/// What a listener says about the PROXY protocol, as far as it is valid.
pub(crate) struct ProxyProtocolSection {
    enabled: Option<Located<bool>>,
    /// `Some(None)`: left out.
    trusted: Option<Option<Located<Vec<IpNetwork>>>>,
}

impl ProxyProtocolSection {
    pub(crate) fn read(table: &mut Reader<'_>) -> Self {
        let enabled = table.read("proxy_protocol", boolean).or(false);
        let trusted = table.strings("trusted", network).optional();
        if let (Some(enabled), Some(trusted)) = (&enabled, &trusted) {
            match trusted {
                Some(trusted) if !enabled.value => {
                    table.sink().report(&trusted.place, "has no effect without proxy_protocol");
                }
                Some(trusted) if trusted.value.is_empty() => {
                    table.sink().report(&trusted.place, "must name at least one network");
                }
                None if enabled.value => {
                    let message = "needs trusted: who may say where a connection comes from";
                    table.sink().report(&enabled.place, message);
                }
                Some(_) | None => {}
            }
        }
        Self { enabled, trusted }
    }

    /// Networks whose hosts are believed; none: nobody is asked.
    pub(crate) fn into_trusted(self) -> Option<Vec<IpNetwork>> {
        let (enabled, trusted) = (self.enabled?.value, self.trusted?);
        Some(trusted.filter(|_| enabled).map(|trusted| trusted.value).unwrap_or_default())
    }
}
