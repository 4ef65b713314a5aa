//! Why there is no machine.

use std::io;

use vm_memory::GuestMemoryError;

use super::boot_info::BootInfoError;
use super::plan::PlanError;
use super::state::StateError;
use super::tables::OutOfPages;
use super::vcpu::VcpuError;
use crate::event::ExitReason;
use crate::image::ImageError;
use crate::jail::JailError;
use crate::memory::MemoryError;
use crate::virtio::RestoreError;

/// Why there is no machine, or no longer one.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BuildError {
    #[error("{0} virtual cpus asked for: this version runs guests on one")]
    Vcpus(u32),
    #[error("{count} file descriptors came with the order instead of {expected}")]
    Descriptors { count: usize, expected: usize },
    #[error("spec has a network interface but no tap came with it")]
    NoTap,
    #[error(transparent)]
    Image(#[from] ImageError),
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error(transparent)]
    BootInfo(#[from] BootInfoError),
    #[error("map the image")]
    MapImage(#[source] io::Error),
    #[error(transparent)]
    Memory(#[from] MemoryError),
    #[error("write {what} into guest memory")]
    Write { what: &'static str, source: GuestMemoryError },
    #[error("read boot info from guest memory")]
    ReadBootInfo(#[source] GuestMemoryError),
    #[error(transparent)]
    Tables(#[from] OutOfPages),
    #[error(transparent)]
    Vcpu(#[from] VcpuError),
    #[error("make the network device")]
    Network(#[source] io::Error),
    #[error("snapshot")]
    State(#[from] StateError),
    #[error("snapshot has {0} network device")]
    NetworkMismatch(&'static str),
    #[error("restore the network device")]
    RestoreNetwork(#[from] RestoreError),
    #[error("get random bytes for the guest")]
    Random(#[source] io::Error),
    #[error(transparent)]
    Limit(#[from] JailError),
    #[error("listen for weir's commands")]
    Interrupt(#[source] io::Error),
}

impl BuildError {
    /// Whose fault it is: the tenant's (image, configuration) or the host's.
    pub(crate) fn reason(&self) -> ExitReason {
        let text = crate::message(self);
        match self {
            Self::Vcpus(_) | Self::Image(_) | Self::Plan(_) | Self::BootInfo(_) => ExitReason::Refused(text),
            Self::Memory(MemoryError::Unaligned(_) | MemoryError::TooLarge(_)) => ExitReason::Refused(text),
            _ => ExitReason::Host(text),
        }
    }
}
