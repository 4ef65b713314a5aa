//! The namespace's kernel settings, each with what it is for. A new namespace inherits some from the host, so
//! every one that matters is set, for devices that are there (`all`) and for those to come (`default`).

use std::fs;
use std::io;
use std::path::Path;

use super::NamespaceError;

/// Below /proc/sys/net, which shows the namespace of the thread that looks at it.
const ROOT: &str = "/proc/sys/net";

/// Of each IPv4 device (ip-sysctl in the kernel's documentation).
const IPV4: [(&str, &str); 11] = [
    // No packet goes from one device to another, of any kind.
    ("forwarding", "0"),
    ("mc_forwarding", "0"),
    ("bc_forwarding", "0"),
    // Strict: a source address must be the one that this device's route leads to.
    ("rp_filter", "1"),
    // Nor may it be weir's own, or loopback's.
    ("accept_local", "0"),
    ("route_localnet", "0"),
    // Routes are what weir says, not what a packet says.
    ("accept_source_route", "0"),
    ("accept_redirects", "0"),
    ("secure_redirects", "0"),
    ("send_redirects", "0"),
    // Nobody answers for someone else.
    ("proxy_arp", "0"),
];

/// IPv6 is off: devices get no link-local address and drop what arrives.
const IPV6: [(&str, &str); 2] = [("disable_ipv6", "1"), ("forwarding", "0")];

/// Sets all of them in the calling thread's namespace.
pub(super) fn apply() -> Result<(), NamespaceError> {
    for (family, settings) in [("ipv4", IPV4.as_slice()), ("ipv6", IPV6.as_slice())] {
        if !Path::new(ROOT).join(family).join("conf").exists() && family == "ipv6" {
            // Not in this kernel.
            continue;
        }
        for (name, value) in settings {
            for devices in ["all", "default"] {
                ensure(&format!("{family}/conf/{devices}/{name}"), value)?;
            }
        }
    }
    Ok(())
}

/// Writes only what differs: an already right, read-only setting is fine.
fn ensure(name: &str, value: &'static str) -> Result<(), NamespaceError> {
    let path = Path::new(ROOT).join(name);
    let result = match fs::read_to_string(&path) {
        Ok(text) if text.trim() == value => Ok(()),
        // Older kernels lack some of them, and then what they switch off.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        _ => fs::write(&path, value),
    };
    result.map_err(|source| NamespaceError::Setting { name: name.to_owned(), value, source })
}
