//! What the guest reaches where it has no memory: its control page, and its network's registers.

use std::os::fd::AsFd;
use std::time::Instant;

use vm_memory::{Bytes, GuestAddress};
use weir_abi::control::{EXIT_MAX, LOG_MAX, PageRange, Slice};
use weir_abi::layout;

use super::control::{self, Request};
use super::exit;
use super::network::Network;
use super::run::Machine;
use crate::event::{CrashReason, ExitReason};
use crate::memory::{self, PAGE};
use crate::sys::BootInfoBytes;

impl Machine {
    /// The guest stored `data` at an address without memory.
    pub(super) fn store(&mut self, address: u64, data: &[u8]) -> Result<(), ExitReason> {
        match (device_at(address, data.len()), &mut self.network) {
            (Some((layout::CONTROL, offset)), _) => match control::write(offset, data) {
                Ok(request) => self.serve(request),
                Err(error) => Err(self.unexpected(&error.to_string())),
            },
            (Some((layout::VIRTIO_NET, offset)), Some(network)) => {
                Ok(network.write(offset, data, &self.memory)?)
            }
            _ => Err(self.unexpected(&format!("write of {} bytes to {address:#x}", data.len()))),
        }
    }

    fn serve(&mut self, request: Request) -> Result<(), ExitReason> {
        match request {
            Request::Park(wait) => self.park(wait),
            Request::Ready => Ok(self.outbox.ready(self.control.as_fd())?),
            Request::Log(slice) => {
                let line = self.read("LOG", slice, LOG_MAX)?;
                Ok(self.outbox.log(self.control.as_fd(), &line, Instant::now())?)
            }
            Request::Discard(pages) => self.discard(pages),
            Request::Exit(slice) => Err(exit::reason(&self.read("EXIT", slice, EXIT_MAX)?)),
            Request::DoubleFault => Err(ExitReason::Crashed(CrashReason::DoubleFault)),
        }
    }

    /// Gives the host's memory behind pages of the heap back.
    fn discard(&self, pages: PageRange) -> Result<(), ExitReason> {
        let (start, length) = (pages.address(), pages.bytes());
        // The guest cannot write this page.
        let info = self.memory.read_obj(GuestAddress(layout::BOOT_INFO));
        let BootInfoBytes(info) = info.map_err(|error| ExitReason::Host(error.to_string()))?;
        let in_heap = info.heap.start <= start && start + length <= info.heap.end;
        if length == 0 || start % PAGE != 0 || !in_heap {
            let text = format!("DISCARD of {length} bytes at {start:#x}, not pages of the heap");
            return Err(self.unexpected(&text));
        }
        let kept = if self.template { memory::Kept::File } else { memory::Kept::Process };
        memory::discard(&self.memory, start..start + length, kept)
            .map_err(|error| ExitReason::Host(crate::message(&error)))
    }

    /// Copies a message of at most `longest` bytes out of guest memory; what is longer is cut.
    fn read(&self, register: &str, slice: Slice, longest: usize) -> Result<Vec<u8>, ExitReason> {
        let mut bytes = vec![0; usize::from(slice.length()).min(longest)];
        match self.memory.read_slice(&mut bytes, GuestAddress(slice.address())) {
            Ok(()) => Ok(bytes),
            Err(_) => Err(self.unexpected(&format!(
                "{register} of {} bytes at {:#x}, outside of memory",
                slice.length(),
                slice.address()
            ))),
        }
    }
}

/// The guest loads from an address without memory.
pub(super) fn load(network: Option<&mut Network>, address: u64, data: &mut [u8]) -> Result<(), String> {
    match (device_at(address, data.len()), network) {
        (Some((layout::CONTROL, offset)), _) => {
            control::read(offset, data).map_err(|error| error.to_string())
        }
        (Some((layout::VIRTIO_NET, offset)), Some(network)) => {
            network.read(offset, data);
            Ok(())
        }
        _ => Err(format!("read of {} bytes from {address:#x}", data.len())),
    }
}

/// Page and offset of an access that lies within one page of the MMIO window.
fn device_at(address: u64, size: usize) -> Option<(u64, u64)> {
    let offset = address % PAGE;
    let in_window = (layout::CONTROL..layout::MMIO_END).contains(&address);
    (in_window && offset + size as u64 <= PAGE).then_some((address - offset, offset))
}
