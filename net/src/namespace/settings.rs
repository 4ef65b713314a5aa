//! The namespace's kernel settings, each with what it is for. A new namespace inherits some from the host, so
//! every one that matters is set, for devices that are there (`all`) and for those to come (`default`).

use std::fs;
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
    apply_to("ipv4", &IPV4)?;
    // A kernel without IPv6 has nothing to switch off. That /proc/sys is there at all was just seen.
    if Path::new(ROOT).join("ipv6/conf").exists() { apply_to("ipv6", &IPV6) } else { Ok(()) }
}

fn apply_to(family: &str, settings: &[(&str, &'static str)]) -> Result<(), NamespaceError> {
    for (name, value) in settings {
        for devices in ["all", "default"] {
            ensure(&format!("{family}/conf/{devices}/{name}"), value)?;
        }
    }
    Ok(())
}

/// Writes only what differs: an already right, read-only setting is fine. A missing one is not: every kernel since
/// 4.19 has them all, so it would mean that nothing can be seen from here.
fn ensure(name: &str, value: &'static str) -> Result<(), NamespaceError> {
    let path = Path::new(ROOT).join(name);
    let result = match fs::read_to_string(&path) {
        Ok(text) if text.trim() == value => Ok(()),
        Ok(_) => fs::write(&path, value),
        Err(error) => Err(error),
    };
    result.map_err(|source| NamespaceError::Setting { name: name.to_owned(), value, source })
}
