//! What this process is, from `/proc/self/status`: how many threads it has and what it may do.

use std::fs;
use std::io;

/// Bit of `CAP_NET_ADMIN` in a capability set (capabilities(7)).
pub(crate) const CAP_NET_ADMIN: u32 = 12;
/// Bit of `CAP_SYS_ADMIN`.
pub(crate) const CAP_SYS_ADMIN: u32 = 21;

/// The parts of `/proc/self/status` that decide what can be unshared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Status {
    /// Threads of this process.
    pub(crate) threads: u32,
    /// Effective user id.
    pub(crate) euid: u32,
    /// Effective capabilities, one bit each.
    pub(crate) capabilities: u64,
}

impl Status {
    /// Reads it.
    pub(crate) fn read() -> io::Result<Self> {
        let text = fs::read_to_string("/proc/self/status")?;
        Self::parse(&text)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "incomplete /proc/self/status"))
    }

    /// Whether this is root with all that namespaces and TAPs need.
    pub(crate) fn is_capable_root(self) -> bool {
        let has = |bit: u32| self.capabilities & (1 << bit) != 0;
        self.euid == 0 && has(CAP_SYS_ADMIN) && has(CAP_NET_ADMIN)
    }

    fn parse(text: &str) -> Option<Self> {
        let field = |name: &str| {
            text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
        };
        Some(Self {
            threads: field("Threads")?.parse().ok()?,
            // real, effective, saved, file system
            euid: field("Uid")?.split_whitespace().nth(1)?.parse().ok()?,
            capabilities: u64::from_str_radix(field("CapEff")?, 16).ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Status;

    const ROOT: &str = "Name:\tweir\nUid:\t0\t0\t0\t0\nThreads:\t1\nCapEff:\t000001fffeffffff\n";

    #[test]
    fn root_with_all_capabilities_is_capable() {
        let status = Status::parse(ROOT).expect("complete");
        assert_eq!((status.threads, status.euid), (1, 0));
        assert!(status.is_capable_root());
    }

    #[test]
    fn root_without_sys_admin_or_another_user_is_not() {
        for text in [
            ROOT.replace("000001fffeffffff", "00000000a80425fb"),
            ROOT.replace("Uid:\t0\t0", "Uid:\t0\t1000"),
            ROOT.replace("Uid:\t0\t0", "Uid:\t1000\t1000"),
        ] {
            assert!(!Status::parse(&text).expect("complete").is_capable_root(), "{text}");
        }
    }

    #[test]
    fn missing_or_odd_fields_are_no_status() {
        for text in [
            "",
            "Threads:\t1\n",
            &ROOT.replace("Threads:\t1", "Threads:\tx"),
            &ROOT.replace("Uid:\t0\t0\t0\t0", "Uid:\t0"),
        ] {
            assert_eq!(Status::parse(text), None, "{text}");
        }
    }

    #[test]
    fn this_process_has_at_least_this_thread() {
        assert!(Status::read().expect("readable").threads >= 1);
    }
}
