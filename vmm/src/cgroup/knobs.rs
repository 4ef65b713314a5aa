//! Names and units of the files by which a group is limited.

use std::io::{self, ErrorKind};
use std::path::Path;

use super::fs::Filesystem;
use super::{Controller, Version};

/// What a VM's process, and the kernel on its behalf, may take besides guest memory, bytes. Measured on a software KVM:
/// 1.3 MiB for all of a small VM, 0.8 of it the kernel's. The rest is room, for a limit that is too tight kills. Page
/// tables grow with guest memory and are added to this.
pub const OVERHEAD: u64 = 16 << 20;
/// Tasks of one VM: its process and the kernel's thread that KVM starts for it, with room.
const TASKS: &str = "16\n";
/// Microseconds in which a quota is counted: the kernel's own default, of which it takes no less than 1000.
const PERIOD: u64 = 100_000;

/// CPU time of one VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuLimits {
    /// Share of a busy CPU in proportion to the other VMs' weights, 1 to 10000.
    pub weight: u32,
    /// CPU time per time, thousandths of one CPU, at least 10; `None`: no limit.
    pub quota: Option<u32>,
}

impl Default for CpuLimits {
    fn default() -> Self {
        Self { weight: 100, quota: None }
    }
}

/// A file of a group and what is written to it.
pub(super) type Knob = (&'static str, String);

pub(super) fn weight(version: Version, weight: u32) -> Knob {
    match version {
        // 1024 shares are the default, as a weight of 100 is; the kernel takes 2 to 2^18.
        Version::V1 => ("cpu.shares", format!("{}\n", (u64::from(weight) * 1024 / 100).clamp(2, 1 << 18))),
        Version::V2 => ("cpu.weight", format!("{}\n", weight.clamp(1, 10_000))),
    }
}

pub(super) fn quota(version: Version, milli_cpus: Option<u32>) -> Knob {
    let micros = milli_cpus.map(|milli| u64::from(milli.max(10)) * PERIOD / 1000);
    match version {
        Version::V1 => ("cpu.cfs_quota_us", micros.map_or("-1\n".to_owned(), |micros| format!("{micros}\n"))),
        Version::V2 => {
            let quota = micros.map_or("max".to_owned(), |micros| micros.to_string());
            ("cpu.max", format!("{quota} {PERIOD}\n"))
        }
    }
}

/// For a guest with this much memory, bytes. Page tables take up to 1/512 of it twice: the process's and KVM's.
pub(super) fn memory(version: Version, guest: Option<u64>) -> Knob {
    let limit = guest.map(|guest| guest.saturating_add(guest / 256).saturating_add(OVERHEAD));
    match version {
        Version::V1 => {
            ("memory.limit_in_bytes", limit.map_or("-1\n".to_owned(), |limit| format!("{limit}\n")))
        }
        Version::V2 => ("memory.max", limit.map_or("max\n".to_owned(), |limit| format!("{limit}\n"))),
    }
}

/// The file that has the memory charged to a group, bytes.
pub(super) fn charged(version: Version) -> &'static str {
    match version {
        Version::V1 => "memory.usage_in_bytes",
        Version::V2 => "memory.current",
    }
}

/// What is the same for every VM. A VM that may not have memory shall not have swap instead; hosts without swap have
/// no file for it.
pub(super) fn initialize(
    fs: &dyn Filesystem,
    group: &Path,
    version: Version,
    controller: Controller,
) -> io::Result<()> {
    let swap = match version {
        Version::V1 => "memory.swappiness",
        Version::V2 => "memory.swap.max",
    };
    match controller {
        Controller::Cpu => Ok(()),
        Controller::Pids => fs.write(&group.join("pids.max"), TASKS),
        Controller::Memory => match fs.write(&group.join(swap), "0\n") {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            written => written,
        },
    }
}
