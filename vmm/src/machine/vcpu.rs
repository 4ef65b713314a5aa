//! The vCPU: its state at the first instruction (DESIGN, "the two-ring contract"), and what it stops for.

use kvm_bindings::{Msrs, kvm_fpu, kvm_msr_entry, kvm_regs, kvm_segment, kvm_sregs};
use kvm_ioctls::{Cap, Kvm, SyncReg, VcpuFd};
use weir_abi::layout;

use super::gates::Gates;
use super::system;
use crate::kvm;
use crate::sys::MappedVm;

const MSR_TSC: u32 = 0x10;
const MSR_STAR: u32 = 0xc000_0081;
const MSR_LSTAR: u32 = 0xc000_0082;
const MSR_CSTAR: u32 = 0xc000_0083;
const MSR_SFMASK: u32 = 0xc000_0084;

/// PE, MP, ET, NE, WP, PG.
const CR0: u64 = 0x8001_0033;
/// PAE, OSFXSR, OSXMMEXCPT. Never SMEP or SMAP: the `syscall` stub is ring-0 code on a user page.
const CR4: u64 = 0x620;
const CR4_FSGSBASE: u64 = 1 << 16;
/// SCE, LME, LMA, NXE.
const EFER: u64 = 0xd01;
/// Interrupts enabled, IOPL 0; bit 1 is always set.
const RFLAGS: u64 = 0x202;
/// x87 control word and MXCSR as after FNINIT and reset: all exceptions masked.
const FCW: u16 = 0x37f;
const MXCSR: u32 = 0x1f80;

/// Which step of making a vCPU failed.
#[derive(Debug, thiserror::Error)]
#[error("{step}")]
pub(crate) struct VcpuError {
    step: &'static str,
    source: kvm_ioctls::Error,
}

/// Names the step in an error of KVM's.
pub(crate) fn step(step: &'static str) -> impl Fn(kvm_ioctls::Error) -> VcpuError {
    move |source| VcpuError { step, source }
}

/// Where a guest begins.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Start {
    /// First instruction.
    pub(crate) entry: u64,
    /// End of the stack, exclusive.
    pub(crate) stack_end: u64,
    /// Root page table.
    pub(crate) root: u64,
}

/// Makes the vCPU and puts it at the guest's first instruction.
pub(crate) fn create(kvm: &Kvm, vm: &MappedVm, start: Start, gates: &Gates) -> Result<VcpuFd, VcpuError> {
    let mut vcpu = vm.fd().create_vcpu(0).map_err(step("create vcpu"))?;
    let cpuid = kvm::supported_cpuid(kvm).map_err(step("get supported cpuid"))?;
    let fsgsbase =
        cpuid.as_slice().iter().any(|leaf| leaf.function == 7 && leaf.index == 0 && leaf.ebx & 1 != 0);
    vcpu.set_cpuid2(cpuid).map_err(step("set cpuid"))?;
    let mut special = vcpu.get_sregs().map_err(step("get system registers"))?;
    set_system(&mut special, start.root, fsgsbase);
    let general = kvm_regs {
        rip: start.entry,
        // As after a call: the ABI wants the stack 16-byte aligned, minus 8.
        rsp: start.stack_end - 8,
        rdi: layout::BOOT_INFO,
        rflags: RFLAGS,
        ..Default::default()
    };
    // System registers by ioctl in any case: MSRs and KVM's idea of the CPU mode depend on them at once.
    vcpu.set_sregs(&special).map_err(step("set system registers"))?;
    if kvm.check_extension(Cap::SyncRegs) {
        vcpu.sync_regs_mut().regs = general;
        vcpu.set_sync_dirty_reg(SyncReg::Register);
    } else {
        vcpu.set_regs(&general).map_err(step("set registers"))?;
    }
    let fpu = kvm_fpu { fcw: FCW, mxcsr: MXCSR, ..Default::default() };
    vcpu.set_fpu(&fpu).map_err(step("set fpu"))?;
    set_syscall(&vcpu, gates)?;
    Ok(vcpu)
}

/// Control registers, descriptor tables and segments for ring 3 in 64-bit mode.
fn set_system(special: &mut kvm_sregs, root: u64, fsgsbase: bool) {
    let code = kvm_segment {
        selector: system::USER_CODE,
        limit: u32::MAX,
        type_: 0xb,
        present: 1,
        dpl: 3,
        s: 1,
        l: 1,
        g: 1,
        ..Default::default()
    };
    let data = kvm_segment { selector: system::USER_DATA, type_: 0x3, l: 0, db: 1, ..code };
    special.cs = code;
    (special.ss, special.ds, special.es, special.fs) = (data, data, data, data);
    special.gs = kvm_segment { base: layout::TRAP_AREA, ..data };
    special.tr = kvm_segment {
        base: system::TSS,
        limit: system::TSS_LIMIT.into(),
        selector: system::TASK,
        type_: 0xb,
        present: 1,
        ..Default::default()
    };
    special.ldt = kvm_segment { type_: 0x2, unusable: 1, ..Default::default() };
    (special.gdt.base, special.gdt.limit) = (system::GDT, system::GDT_LIMIT);
    (special.idt.base, special.idt.limit) = (system::IDT, system::IDT_LIMIT);
    special.cr0 = CR0;
    special.cr2 = 0;
    special.cr3 = root;
    special.cr4 = if fsgsbase { CR4 | CR4_FSGSBASE } else { CR4 };
    special.efer = EFER;
}

fn set_syscall(vcpu: &VcpuFd, gates: &Gates) -> Result<(), VcpuError> {
    let values = [
        (MSR_STAR, system::STAR),
        (MSR_LSTAR, gates.syscall()),
        // 32-bit mode cannot be reached: there is no such code segment.
        (MSR_CSTAR, 0),
        (MSR_SFMASK, system::SFMASK.into()),
    ];
    let entries = values.map(|(index, data)| kvm_msr_entry { index, data, ..Default::default() });
    let msrs = msrs(&entries)?;
    let set = vcpu.set_msrs(&msrs).map_err(step("set syscall registers"))?;
    if set == entries.len() { Ok(()) } else { Err(step("set all syscall registers")(einval())) }
}

/// The guest's time-stamp counter now.
pub(crate) fn read_tsc(vcpu: &VcpuFd) -> Result<u64, VcpuError> {
    let mut msrs = msrs(&[kvm_msr_entry { index: MSR_TSC, ..Default::default() }])?;
    vcpu.get_msrs(&mut msrs).map_err(step("get time-stamp counter"))?;
    Ok(msrs.as_slice()[0].data)
}

/// Frequency of the guest's time-stamp counter, Hz.
pub(crate) fn tsc_hz(vcpu: &VcpuFd) -> Result<u64, VcpuError> {
    match vcpu.get_tsc_khz().map_err(step("get frequency of time-stamp counter"))? {
        0 => Err(step("get frequency of time-stamp counter")(einval())),
        khz => Ok(u64::from(khz) * 1000),
    }
}

fn msrs(entries: &[kvm_msr_entry]) -> Result<Msrs, VcpuError> {
    Msrs::from_entries(entries).map_err(|_| step("list model-specific registers")(einval()))
}

fn einval() -> kvm_ioctls::Error {
    kvm_ioctls::Error::new(libc::EINVAL)
}
