//! The machine as far as a frozen VM depends on it: a snapshot of another CPU or kernel may hold features that this
//! one lacks, and so is not ours.

use std::fs::File;
use std::io::{self, Read};

use serde::{Deserialize, Serialize};

/// More than the first processor's part of /proc/cpuinfo takes, bytes.
const CPUINFO_MAX: u64 = 64 * 1024;

/// See the module's documentation. Not the microcode and not the clock rate: a guest sees neither.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Host {
    pub(super) vendor: String,
    pub(super) family: String,
    pub(super) model: String,
    pub(super) stepping: String,
    pub(super) flags: String,
    /// Its release: KVM decides which of the CPU's features guests get, and differs between releases.
    pub(super) kernel: String,
}

impl Host {
    /// This machine.
    pub(super) fn read() -> io::Result<Self> {
        let mut cpuinfo = Vec::new();
        File::open("/proc/cpuinfo")?.take(CPUINFO_MAX).read_to_end(&mut cpuinfo)?;
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
        Self::parse(&String::from_utf8_lossy(&cpuinfo), kernel.trim())
            .ok_or_else(|| io::Error::other("/proc/cpuinfo does not say which CPU this is"))
    }

    /// The first processor in `cpuinfo` (proc_cpuinfo(5)).
    fn parse(cpuinfo: &str, kernel: &str) -> Option<Self> {
        let first = cpuinfo.split("\n\n").next()?;
        let field = |name: &str| {
            let pairs = first.lines().filter_map(|line| line.split_once(':'));
            let value = pairs.into_iter().find(|(key, _)| key.trim_end() == name)?.1;
            Some(value.trim().to_owned())
        };
        Some(Self {
            vendor: field("vendor_id")?,
            family: field("cpu family")?,
            model: field("model")?,
            stepping: field("stepping")?,
            flags: field("flags")?,
            kernel: kernel.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CPUINFO: &str = "processor\t: 0\nvendor_id\t: AuthenticAMD\ncpu family\t: 25\nmodel\t\t: 17\n\
        model name\t: AMD EPYC\nstepping\t: 1\nmicrocode\t: 0x1000065\nflags\t\t: fpu vme: de\n\n\
        processor\t: 1\nvendor_id\t: Other\n";

    #[test]
    fn the_first_processor_is_read_and_this_machine_has_one() {
        let host = Host::parse(CPUINFO, "6.18.1").unwrap();
        let fields = [&host.vendor, &host.family, &host.model, &host.stepping, &host.flags, &host.kernel];
        assert_eq!(fields, ["AuthenticAMD", "25", "17", "1", "fpu vme: de", "6.18.1"]);
        assert_eq!(Host::parse("processor\t: 0\n\nvendor_id: x\n", "6.18.1"), None);
        assert_eq!(Host::read().unwrap(), Host::read().unwrap());
    }
}
