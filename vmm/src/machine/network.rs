//! The machine's network device, new or as a snapshot has it.

use std::os::fd::OwnedFd;

use kvm_ioctls::{IoEventAddress, NoDatamatch, VmFd};
use vm_memory::GuestMemoryMmap;
use weir_abi::layout;

use super::error::BuildError;
use super::vcpu::step;
use crate::spec::NetSpec;
use crate::virtio::net::NetDevice;
use crate::virtio::{Tap, Transport, TransportState};

/// The guest's network interface.
pub(crate) type Network = Transport<NetDevice<Tap>>;

/// No device reaches the VMM's own areas for a guest.
const DMA_FLOOR: u64 = layout::IMAGE_MIN;

/// A device that no driver has seen yet.
pub(crate) fn cold(net: &NetSpec, tap: OwnedFd, vm: &VmFd) -> Result<Network, BuildError> {
    let network =
        Transport::new(NetDevice::new(Tap::new(tap), net), DMA_FLOOR).map_err(BuildError::Network)?;
    connect(&network, vm)?;
    Ok(network)
}

/// A device in the middle of its life, on another link.
pub(crate) fn restored(
    net: &NetSpec,
    tap: OwnedFd,
    vm: &VmFd,
    state: &TransportState,
    memory: &GuestMemoryMmap,
) -> Result<Network, BuildError> {
    let network = Transport::restore(NetDevice::new(Tap::new(tap), net), DMA_FLOOR, state, memory)?;
    connect(&network, vm)?;
    Ok(network)
}

/// Keeps kicks from leaving the guest.
fn connect(network: &Network, vm: &VmFd) -> Result<(), BuildError> {
    let notify = IoEventAddress::Mmio(layout::VIRTIO_NET + network.notify_offset());
    let registered = vm.register_ioevent(network.notify_fd(), &notify, NoDatamatch);
    Ok(registered.map_err(step("register ioeventfd"))?)
}
