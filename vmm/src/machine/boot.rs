//! From a blank VM, a spec and an image to a machine at its first instruction: a cold boot.

use std::fs::File;
use std::os::fd::OwnedFd;

use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use weir_abi::{BootInfo, TrapArea, layout};

use super::blank::Blank;
use super::error::BuildError;
use super::gates::Gates;
use super::plan::{self, Plan};
use super::run::{Machine, Parts};
use super::tables::Tables;
use super::vcpu::{self, Start, Vcpu};
use super::{boot_info, network, system};
use crate::image::Image;
use crate::memory::{self, Backing};
use crate::order::{BootOrder, Sharing};
use crate::spec::VmSpec;
use crate::sys::{BootInfoBytes, MappedVm, SealedFile};

/// What a machine is booted from, besides its spec.
#[derive(Debug)]
pub(crate) struct Files {
    /// The image: a sealed memfd.
    pub(crate) image: File,
    /// The TAP, if the spec has a network.
    pub(crate) tap: Option<OwnedFd>,
    /// What guest memory is kept in; `None`: in memory of the process itself. With it the machine is a template.
    pub(crate) memory: Option<File>,
}

/// Carries out a [`BootOrder`].
pub(crate) fn from_order(
    blank: Blank,
    order: &BootOrder,
    files: Vec<OwnedFd>,
    control: OwnedFd,
) -> Result<Machine, BuildError> {
    let count = files.len();
    let expected = 1 + usize::from(order.spec.net.is_some()) + usize::from(order.template);
    let mut files = files.into_iter();
    let (Some(image), true) = (files.next(), count == expected) else {
        return Err(BuildError::Descriptors { count, expected });
    };
    let tap = if order.spec.net.is_some() { files.next() } else { None };
    let files = Files { image: image.into(), tap, memory: files.next().map(File::from) };
    boot(blank, &order.spec, files, control)
}

/// Builds the machine on the calling thread, which has to be the one that runs it.
pub(crate) fn boot(
    blank: Blank,
    spec: &VmSpec,
    files: Files,
    control: OwnedFd,
) -> Result<Machine, BuildError> {
    if spec.vcpus != 1 {
        return Err(BuildError::Vcpus(spec.vcpus));
    }
    memory::check_size(spec.memory)?;
    let bytes = SealedFile::map(&files.image).map_err(BuildError::MapImage)?;
    let image = Image::parse(&bytes)?;
    let plan = plan::plan(&image, spec.memory, spec.net.is_some())?;
    let template = files.memory.is_some();
    let memory = match files.memory {
        Some(file) => memory::map(spec.memory, Backing::File(file, Sharing::Shared))?,
        None => memory::map(spec.memory, Backing::Anonymous)?,
    };
    let Blank { vcpu, vm, gates, tsc_hz } = blank;
    let vm = MappedVm::new(vm, &memory).map_err(vcpu::step("give memory to vm"))?;
    load_image(&memory, &image, &bytes)?;
    load_system(&memory, &gates)?;
    load_tables(&memory, &plan)?;
    let network = match &spec.net {
        Some(net) => Some(network::cold(net, files.tap.ok_or(BuildError::NoTap)?, vm.fd())?),
        None => None,
    };
    vcpu::start(&vcpu.fd, Start { entry: image.entry(), stack_end: plan.stack.end })?;
    load_boot_info(&memory, spec, &plan, tsc_hz, &vcpu)?;
    Machine::new(Parts { vcpu, vm, memory, network, control, log_lines: spec.log_lines, template })
}

fn write(memory: &GuestMemoryMmap, what: &'static str, address: u64, bytes: &[u8]) -> Result<(), BuildError> {
    let result = memory.write_slice(bytes, GuestAddress(address));
    result.map_err(|source| BuildError::Write { what, source })
}

fn load_image(memory: &GuestMemoryMmap, image: &Image, file: &[u8]) -> Result<(), BuildError> {
    for segment in image.segments() {
        write(memory, "a segment", segment.start, &file[segment.file.clone()])?;
    }
    Ok(())
}

/// Descriptor tables, gates and the trap area.
fn load_system(memory: &GuestMemoryMmap, gates: &Gates) -> Result<(), BuildError> {
    let bytes = |words: &[u64]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<_>>();
    write(memory, "the GDT", system::GDT, &bytes(&system::gdt()))?;
    write(memory, "the IDT", system::IDT, &bytes(system::idt(gates).as_flattened()))?;
    write(memory, "the TSS", system::TSS, &system::tss())?;
    write(memory, "the gates", system::GATES, gates.kernel)?;
    write(memory, "the gates", layout::GATE_CODE, gates.user)?;
    let this = layout::TRAP_AREA + std::mem::offset_of!(TrapArea, this) as u64;
    write(memory, "the trap area", this, &layout::TRAP_AREA.to_le_bytes())
}

fn load_tables(memory: &GuestMemoryMmap, plan: &Plan) -> Result<(), BuildError> {
    let tables = Tables::build(&plan.mappings, plan::table_pages())?;
    for (address, entries) in &tables.pages {
        let used = entries.iter().rposition(|entry| *entry != 0).map_or(0, |last| last + 1);
        let bytes: Vec<u8> = entries[..used].iter().flat_map(|entry| entry.to_le_bytes()).collect();
        write(memory, "a page table", *address, &bytes)?;
    }
    Ok(())
}

fn load_boot_info(
    memory: &GuestMemoryMmap,
    spec: &VmSpec,
    plan: &Plan,
    tsc_hz: u64,
    vcpu: &Vcpu,
) -> Result<(), BuildError> {
    let clock = boot_info::clock(tsc_hz, &vcpu.fd)?;
    let (info, strings) = boot_info::compose(spec, plan, clock, boot_info::entropy()?)?;
    memory
        .write_obj(BootInfoBytes(info), GuestAddress(layout::BOOT_INFO))
        .map_err(|source| BuildError::Write { what: "boot info", source })?;
    write(memory, "boot info", layout::BOOT_INFO + size_of::<BootInfo>() as u64, &strings)
}
