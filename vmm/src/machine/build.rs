//! From a spec and an image to a machine at its first instruction.
//!
//! Order matters: memory slots come before everything else in the VM (a slot added later costs ten times as much on
//! some hosts), there is no interrupt controller at all, and the clock is read last.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use kvm_ioctls::{Cap, IoEventAddress, NoDatamatch, VcpuFd};
use rustix::rand::{GetRandomFlags, getrandom};
use vm_memory::{Bytes, GuestAddress, GuestMemoryError, GuestMemoryMmap};
use weir_abi::{BootInfo, TrapArea, layout};

use super::boot_info::{self, BootInfoError, Clock};
use super::gates::Gates;
use super::outbox::Outbox;
use super::plan::{self, Plan, PlanError};
use super::refusals::Refusals;
use super::run::{Machine, Network};
use super::tables::{OutOfPages, Tables};
use super::vcpu::{self, Start, VcpuError, step};
use super::{interrupt, system};
use crate::event::ExitReason;
use crate::image::{Image, ImageError};
use crate::memory::{self, MemoryError};
use crate::spec::VmSpec;
use crate::sys::{self, BootInfoBytes, MappedVm, SealedFile};
use crate::virtio::net::NetDevice;
use crate::virtio::{Tap, Transport};

/// Three pages that no kernel of ours uses; KVM on Intel wants them for real mode, and nobody else minds.
const KVM_TSS: usize = 0xfffb_d000;

/// Why there is no machine.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BuildError {
    #[error("{0} virtual cpus asked for: this version runs guests on one")]
    Vcpus(u32),
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
    #[error(transparent)]
    Tables(#[from] OutOfPages),
    #[error(transparent)]
    Vcpu(#[from] VcpuError),
    #[error("make the network device")]
    Network(#[source] io::Error),
    #[error("get random bytes for the guest")]
    Random(#[source] io::Error),
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

/// Builds the machine on the calling thread, which has to be the one that runs it.
pub(crate) fn build(
    kvm: OwnedFd,
    spec: &VmSpec,
    image: &File,
    tap: Option<OwnedFd>,
    control: OwnedFd,
) -> Result<Machine, BuildError> {
    if spec.vcpus != 1 {
        return Err(BuildError::Vcpus(spec.vcpus));
    }
    memory::check_size(spec.memory)?;
    let file = SealedFile::map(image).map_err(BuildError::MapImage)?;
    let image = Image::parse(&file)?;
    let plan = plan::plan(&image, spec.memory, spec.net.is_some())?;
    let memory = memory::allocate(spec.memory)?;

    let kvm = sys::kvm(kvm);
    let vm = kvm.create_vm().map_err(step("create vm"))?;
    let vm = MappedVm::new(vm, &memory).map_err(step("give memory to vm"))?;
    if kvm.check_extension(Cap::SetTssAddr) {
        vm.fd().set_tss_address(KVM_TSS).map_err(step("set tss address"))?;
    }
    let gates = Gates::load();
    load_image(&memory, &image, &file)?;
    load_system(&memory, &gates)?;
    let root = load_tables(&memory, &plan)?;
    let network = network(spec, tap, &vm)?;
    let start = Start { entry: image.entry(), stack_end: plan.stack.end, root };
    let mut vcpu = vcpu::create(&kvm, &vm, start, &gates)?;
    load_boot_info(&memory, spec, &plan, &vcpu)?;
    let kick = interrupt::arm(&mut vcpu, &control).map_err(BuildError::Interrupt)?;
    let outbox = Outbox::new(Instant::now());
    Ok(Machine {
        _kick: kick,
        vcpu,
        _vm: vm,
        memory,
        network,
        control,
        outbox,
        refusals: Refusals::default(),
    })
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

/// Returns the root's address.
fn load_tables(memory: &GuestMemoryMmap, plan: &Plan) -> Result<u64, BuildError> {
    let tables = Tables::build(&plan.mappings, plan::table_pages())?;
    for (address, entries) in &tables.pages {
        let used = entries.iter().rposition(|entry| *entry != 0).map_or(0, |last| last + 1);
        let bytes: Vec<u8> = entries[..used].iter().flat_map(|entry| entry.to_le_bytes()).collect();
        write(memory, "a page table", *address, &bytes)?;
    }
    Ok(tables.root)
}

fn network(spec: &VmSpec, tap: Option<OwnedFd>, vm: &MappedVm) -> Result<Option<Network>, BuildError> {
    let Some(net) = &spec.net else { return Ok(None) };
    let tap = Tap::new(tap.ok_or(BuildError::NoTap)?);
    // No device reaches the VMM's own areas for a guest.
    let network = Transport::new(NetDevice::new(tap, net), layout::IMAGE_MIN).map_err(BuildError::Network)?;
    let notify = IoEventAddress::Mmio(layout::VIRTIO_NET + network.notify_offset());
    vm.fd()
        .register_ioevent(network.notify_fd(), &notify, NoDatamatch)
        .map_err(step("register ioeventfd"))?;
    Ok(Some(network))
}

fn load_boot_info(
    memory: &GuestMemoryMmap,
    spec: &VmSpec,
    plan: &Plan,
    vcpu: &VcpuFd,
) -> Result<(), BuildError> {
    let mut entropy = [0; 64];
    getrandom(&mut entropy, GetRandomFlags::empty()).map_err(|error| BuildError::Random(error.into()))?;
    let tsc_hz = vcpu::tsc_hz(vcpu)?;
    let tsc_base = vcpu::read_tsc(vcpu)?;
    // Before 1970 or after 2554 there is no wall clock to speak of.
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let unix_nanos = u64::try_from(since_epoch.as_nanos()).unwrap_or(u64::MAX);
    let clock = Clock { tsc_hz, tsc_base, unix_nanos };
    let (info, strings) = boot_info::compose(spec, plan, clock, entropy)?;
    memory
        .write_obj(BootInfoBytes(info), GuestAddress(layout::BOOT_INFO))
        .map_err(|source| BuildError::Write { what: "boot info", source })?;
    write(memory, "boot info", layout::BOOT_INFO + size_of::<BootInfo>() as u64, &strings)
}
