//! From a blank VM and a template's snapshot to a machine that continues where the template stopped.
//!
//! The memory is the template's, mapped privately: all clones share a page until one of them writes to it. What must
//! not be shared (addresses, random numbers, the clock) stands in boot-info, which is written anew with another
//! generation; the guest takes it over before it does anything else (see [`weir_abi::boot`]).

use std::fs::File;
use std::os::fd::OwnedFd;

use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use weir_abi::{BootInfo, layout};

use super::blank::Blank;
use super::error::BuildError;
use super::run::{Machine, Parts};
use super::state::MachineState;
use super::vcpu::{self, Vcpu};
use super::{boot_info, network};
use crate::memory::{self, Backing};
use crate::order::{CloneOrder, PageRun};
use crate::spec::{NetSpec, VmId};
use crate::sys::{BootInfoBytes, MappedVm};

/// What a clone needs to go back to its beginning.
#[derive(Debug)]
pub(crate) struct Origin {
    pub(crate) id: VmId,
    pub(crate) net: Option<NetSpec>,
    pub(crate) state: MachineState,
    pub(crate) working_set: Vec<PageRun>,
    /// Frequency of the guest's time-stamp counter, Hz.
    pub(crate) tsc_hz: u64,
    /// How often it has begun.
    pub(crate) incarnation: u64,
}

/// Carries out a [`CloneOrder`].
pub(crate) fn from_order(
    blank: Blank,
    order: CloneOrder,
    files: Vec<OwnedFd>,
    control: OwnedFd,
) -> Result<Machine, BuildError> {
    let (count, expected) = (files.len(), 1 + usize::from(order.net.is_some()));
    let mut files = files.into_iter();
    let (Some(file), tap, true) = (files.next(), files.next(), count == expected) else {
        return Err(BuildError::Descriptors { count, expected });
    };
    thaw(blank, order, file.into(), tap, control)
}

fn thaw(
    blank: Blank,
    order: CloneOrder,
    file: File,
    tap: Option<OwnedFd>,
    control: OwnedFd,
) -> Result<Machine, BuildError> {
    let Blank { mut vcpu, vm, tsc_hz, .. } = blank;
    let CloneOrder { id, net, state, working_set, .. } = order;
    let state = MachineState::decode(&state)?;
    let memory = memory::map(order.memory, Backing::File(file, order.sharing))?;
    let vm = MappedVm::new(vm, &memory).map_err(vcpu::step("give memory to vm"))?;
    let network = match (&net, &state.network, tap) {
        (None, None, _) => None,
        (Some(net), Some(state), Some(tap)) => Some(network::restored(net, tap, vm.fd(), state, &memory)?),
        (Some(_), Some(_), None) => return Err(BuildError::NoTap),
        (Some(_), None, _) => return Err(BuildError::NetworkMismatch("no")),
        (None, Some(_), _) => return Err(BuildError::NetworkMismatch("a")),
    };
    let mut origin = Origin { id, net, state, working_set, tsc_hz, incarnation: 0 };
    origin.enter(&mut vcpu, &memory)?;
    let log_lines = order.log_lines;
    let machine = Machine::new(Parts { vcpu, vm, memory, network, control, log_lines, template: false })?;
    Ok(machine.cloned(origin))
}

impl Origin {
    /// Copies the pages that the guest is going to write to. After READY: weir has to connect first, on another CPU.
    pub(crate) fn warm(&self, memory: &GuestMemoryMmap) {
        memory::populate(memory, &self.working_set);
    }

    /// Begins another incarnation: memory is the snapshot's, the vCPU is anywhere between two exits.
    pub(crate) fn enter(&mut self, vcpu: &mut Vcpu, memory: &GuestMemoryMmap) -> Result<(), BuildError> {
        vcpu::load(vcpu, &self.state.cpu)?;
        self.incarnation += 1;
        let place = GuestAddress(layout::BOOT_INFO);
        let BootInfoBytes(old) = memory.read_obj(place).map_err(BuildError::ReadBootInfo)?;
        let clock = boot_info::clock(self.tsc_hz, &vcpu.fd)?;
        let new = BootInfo {
            // The snapshot's never comes back, nor does that of an earlier incarnation.
            generation: old.generation.wrapping_add(self.incarnation),
            vm_id: self.id.0,
            ..old
        };
        let new = boot_info::place(new, self.net.as_ref(), clock, boot_info::entropy()?);
        memory
            .write_obj(BootInfoBytes(new), place)
            .map_err(|source| BuildError::Write { what: "boot info", source })
    }
}
