//! The vCPU: its state at the first instruction (DESIGN, "the two-ring contract"), and what it stops for.

use kvm_bindings::{Msrs, kvm_fpu, kvm_msr_entry, kvm_regs, kvm_segment, kvm_sregs, kvm_vcpu_events};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};
use serde::{Deserialize, Serialize};
use weir_abi::layout;

use super::gates::Gates;
use super::system;
use crate::{kvm, sys};

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
/// CF, PF, AF, ZF, SF, TF, DF, OF, RF, AC, ID: what ring 3 may change of RFLAGS.
const USER_RFLAGS: u64 = 0x25_0dd5;
/// x87 control word and MXCSR as after FNINIT and reset: all exceptions masked.
const FCW: u16 = 0x37f;
const MXCSR: u32 = 0x1f80;

/// More than the parts that KVM makes of one access.
const MMIO_PARTS: usize = 8;

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
}

/// A vCPU, and what [`create`] gave it that no guest in ring 3 can change.
#[derive(Debug)]
pub(crate) struct Vcpu {
    pub(crate) fd: VcpuFd,
    special: kvm_sregs,
}

/// Makes the vCPU of a VM that may not have memory yet, in the state that all guests begin in but for the registers
/// that [`start`] or [`load`] set.
pub(crate) fn create(kvm: &Kvm, vm: &VmFd, gates: &Gates) -> Result<Vcpu, VcpuError> {
    let vcpu = vm.create_vcpu(0).map_err(step("create vcpu"))?;
    let cpuid = kvm::supported_cpuid(kvm).map_err(step("get supported cpuid"))?;
    let fsgsbase =
        cpuid.as_slice().iter().any(|leaf| leaf.function == 7 && leaf.index == 0 && leaf.ebx & 1 != 0);
    vcpu.set_cpuid2(cpuid).map_err(step("set cpuid"))?;
    let mut special = vcpu.get_sregs().map_err(step("get system registers"))?;
    set_system(&mut special, fsgsbase);
    vcpu.set_sregs(&special).map_err(step("set system registers"))?;
    let fpu = kvm_fpu { fcw: FCW, mxcsr: MXCSR, ..Default::default() };
    vcpu.set_fpu(&fpu).map_err(step("set fpu"))?;
    set_syscall(&vcpu, gates)?;
    Ok(Vcpu { fd: vcpu, special })
}

/// Puts the vCPU at a guest's first instruction.
pub(crate) fn start(vcpu: &VcpuFd, start: Start) -> Result<(), VcpuError> {
    let general = kvm_regs {
        rip: start.entry,
        // As after a call: the ABI wants the stack 16-byte aligned, minus 8.
        rsp: start.stack_end - 8,
        rdi: layout::BOOT_INFO,
        rflags: RFLAGS,
        ..Default::default()
    };
    set_general(vcpu, general)
}

fn set_general(vcpu: &VcpuFd, general: kvm_regs) -> Result<(), VcpuError> {
    vcpu.set_regs(&general).map_err(step("set registers"))
}

/// What a guest in ring 3 can change of its vCPU. Everything else is as [`create`] left it, so it is not part of a
/// snapshot, and a snapshot cannot bring a guest into another ring or reach another page table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CpuState {
    /// RAX, RBX, RCX, RDX, RSI, RDI, RSP, RBP, R8 to R15, RIP, RFLAGS.
    general: [u64; 18],
    fs_base: u64,
    gs_base: u64,
    /// The XSAVE area (Intel SDM 1, 13.4), as KVM_GET_XSAVE gives it.
    xsave: Vec<u32>,
}

/// Reads what belongs to a snapshot. The exit that the vCPU stopped with must have been completed.
pub(crate) fn save(vcpu: &VcpuFd) -> Result<CpuState, VcpuError> {
    let r = vcpu.get_regs().map_err(step("get registers"))?;
    let special = vcpu.get_sregs().map_err(step("get system registers"))?;
    let xsave = vcpu.get_xsave().map_err(step("get xsave"))?;
    Ok(CpuState {
        general: [
            r.rax, r.rbx, r.rcx, r.rdx, r.rsi, r.rdi, r.rsp, r.rbp, r.r8, r.r9, r.r10, r.r11, r.r12, r.r13,
            r.r14, r.r15, r.rip, r.rflags,
        ],
        fs_base: special.fs.base,
        gs_base: special.gs.base,
        xsave: xsave.region.to_vec(),
    })
}

/// Gives a vCPU the registers of a snapshot, whatever its guest was doing; the exit that it stopped with must have been
/// completed.
pub(crate) fn load(vcpu: &mut Vcpu, state: &CpuState) -> Result<(), VcpuError> {
    let (fs, gs) = (kvm_segment { base: state.fs_base, ..vcpu.special.fs }, vcpu.special.gs);
    let special = kvm_sregs { fs, gs: kvm_segment { base: state.gs_base, ..gs }, ..vcpu.special };
    vcpu.fd.set_sregs(&special).map_err(step("set system registers"))?;
    vcpu.fd.set_vcpu_events(&kvm_vcpu_events::default()).map_err(step("clear pending exceptions"))?;
    sys::set_xsave(&vcpu.fd, &state.xsave).map_err(step("set xsave"))?;
    let [rax, rbx, rcx, rdx, rsi, rdi, rsp, rbp, r8, r9, r10, r11, r12, r13, r14, r15, rip, rflags] =
        state.general;
    let rflags = rflags & USER_RFLAGS | RFLAGS;
    let general = kvm_regs {
        rax,
        rbx,
        rcx,
        rdx,
        rsi,
        rdi,
        rsp,
        rbp,
        r8,
        r9,
        r10,
        r11,
        r12,
        r13,
        r14,
        r15,
        rip,
        rflags,
    };
    set_general(&vcpu.fd, general)
}

/// Control registers, descriptor tables and segments for ring 3 in 64-bit mode.
fn set_system(special: &mut kvm_sregs, fsgsbase: bool) {
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
    special.cr3 = system::ROOT_TABLE;
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

/// Completes the exit that the vCPU stopped with, without letting the guest run: what KVM still has to do for it would
/// otherwise be done to whatever registers are set next.
pub(crate) fn complete_exit(vcpu: &mut VcpuFd) -> Result<(), VcpuError> {
    // An access that crosses pages comes in parts.
    for _ in 0..MMIO_PARTS {
        vcpu.set_kvm_immediate_exit(1);
        match vcpu.run() {
            Ok(VcpuExit::Intr) => {}
            Err(error) if error.errno() == libc::EINTR => {}
            Ok(_) => continue,
            Err(error) => return Err(step("complete an exit")(error)),
        }
        vcpu.set_kvm_immediate_exit(0);
        return Ok(());
    }
    Err(step("complete an exit")(einval()))
}
