//! virtio devices on the virtio-mmio transport (virtio 1.2, section 4.2, version 2 only).
//!
//! A guest is hostile until proven otherwise, so the rule here is: *odd but harmless* register accesses are ignored
//! or answered with DEVICE_NEEDS_RESET, as the specification has it; whatever breaks the *ring protocol* (a descriptor
//! loop, a buffer outside memory, an impossible index) is a [`Violation`] and ends that VM, for no working driver does
//! it. Nothing a guest writes makes the VMM panic, loop without bound or touch memory that the guest itself may not.
//!
//! No interrupts: the guest polls its rings and gives up the CPU by PARK, which also stands for a kick of every
//! queue. So the devices switch kicks off (`VIRTQ_USED_F_NO_NOTIFY`) and do their work in [`Transport::service`].
//!
//! ```text
//! registers ──> mmio::Transport ──(status, queue set-up checked)──> VirtioDevice::service
//!                                                                     │ chain::Chain: one checked descriptor chain
//! guest memory <──────────── dma::DmaMemory <─────────────────────────┘ net::NetDevice <──> FrameIo (TAP)
//! ```

pub mod chain;
pub mod device;
pub mod dma;
pub mod mmio;
pub mod net;
mod queue;
mod status;
mod sys;
#[cfg(test)]
mod tests;

pub use device::{DeviceError, Progress, Violation, VirtioDevice};
pub use dma::DmaMemory;
pub use mmio::{RestoreError, Transport, TransportState};
pub(crate) use sys::OFFLOADS;
pub use sys::Tap;
