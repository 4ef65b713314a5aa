//! Why there is no TAP.

use std::io;

use crate::address::AddressError;
use crate::doctor::tun_fix;

/// Why a TAP could not be had.
#[derive(Debug, thiserror::Error)]
pub enum TapError {
    /// The configured network is of no use.
    #[error(transparent)]
    Network(AddressError),
    /// No connection to the kernel's routing subsystem.
    #[error("open a netlink socket")]
    Netlink(#[source] io::Error),
    /// No link left for it.
    #[error("choose an address for tap {name}")]
    Address {
        /// The device that was to be made.
        name: String,
        /// Why there is none.
        source: AddressError,
    },
    /// The TUN driver is not there.
    #[error("open tap {name}: /dev/net/tun is missing; {fix}")]
    Missing {
        /// The device that was to be made.
        name: String,
        /// What to do.
        fix: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The TUN driver may not be used.
    #[error("open tap {name}: /dev/net/tun is forbidden; {fix}")]
    Forbidden {
        /// The device that was to be made.
        name: String,
        /// What to do.
        fix: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Another reason why the TUN driver cannot be opened, such as too many open files.
    #[error("open tap {name}; {fix}")]
    Open {
        /// The device that was to be made.
        name: String,
        /// What to do.
        fix: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The driver made no device.
    #[error("create tap {name}; it takes CAP_NET_ADMIN in this network namespace")]
    CreateForbidden {
        /// The device that was to be made.
        name: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The driver made no device for another reason.
    #[error("create tap {name}")]
    Create {
        /// The device that was to be made.
        name: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The device could not be set up.
    #[error("{action}")]
    Configure {
        /// What was tried with which device: "add address 10.88.0.4/31 to weir3".
        action: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A device that was in use before could not be emptied.
    #[error("drain tap {name}")]
    Drain {
        /// The device.
        name: String,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl TapError {
    /// /dev/net/tun could not be opened for the device `name`.
    pub(super) fn open(name: &str, source: io::Error) -> Self {
        let (name, fix) = (name.to_owned(), tun_fix(&source));
        match source.raw_os_error() {
            Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => Self::Missing { name, fix, source },
            Some(libc::EACCES | libc::EPERM) => Self::Forbidden { name, fix, source },
            _ => Self::Open { name, fix, source },
        }
    }

    /// The driver refused to make the device `name`.
    pub(super) fn create(name: &str, source: io::Error) -> Self {
        let name = name.to_owned();
        match source.raw_os_error() {
            Some(libc::EPERM) => Self::CreateForbidden { name, source },
            _ => Self::Create { name, source },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::TapError;

    #[test]
    fn each_error_names_the_device_and_the_way_out() {
        let text = |code| TapError::open("weir3", io::Error::from_raw_os_error(code)).to_string();
        assert!(
            text(libc::ENOENT).starts_with("open tap weir3: /dev/net/tun is missing; run `modprobe tun`")
        );
        assert!(text(libc::EACCES).starts_with("open tap weir3: /dev/net/tun is forbidden; run as root"));
        assert!(text(libc::EMFILE).starts_with("open tap weir3; raise the limit of open files"));
        let create = |code| TapError::create("weir3", io::Error::from_raw_os_error(code)).to_string();
        assert!(create(libc::EPERM).contains("CAP_NET_ADMIN"));
        assert_eq!(create(libc::EBUSY), "create tap weir3");
    }
}
