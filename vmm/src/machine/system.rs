//! The system area: descriptor tables, ring-0 gates and their stacks, page tables. Supervisor only.
//!
//! ```text
//! 0x1_0000  GDT                 r--
//! 0x1_1000  IDT                 r--
//! 0x1_2000  TSS                 r--
//! 0x1_3000  ring-0 gates        r-x
//! 0x1_5000  stack of the page-fault gate    rw-  (a guard page below each stack)
//! 0x1_7000  stack of the double-fault gate  rw-
//! 0x1_9000  page tables         not mapped at all: the CPU reads them by physical address
//! ```
//! Nothing here is ever written by the guest's CPU but the two stacks: accessed bits and the TSS's busy bit are set
//! beforehand.

use weir_abi::layout;

use crate::memory::PAGE;

use super::gates::Gates;

/// Global descriptor table.
pub(crate) const GDT: u64 = layout::SYSTEM;
/// Interrupt descriptor table.
pub(crate) const IDT: u64 = GDT + PAGE;
/// Task state segment.
pub(crate) const TSS: u64 = IDT + PAGE;
/// Ring-0 gate code.
pub(crate) const GATES: u64 = TSS + PAGE;
/// Stack of the page-fault gate.
pub(crate) const PAGE_FAULT_STACK: u64 = GATES + 2 * PAGE;
/// Stack of the double-fault gate.
pub(crate) const DOUBLE_FAULT_STACK: u64 = PAGE_FAULT_STACK + 2 * PAGE;
/// Page tables, to the end of the system area.
pub(crate) const TABLES: u64 = DOUBLE_FAULT_STACK + 2 * PAGE;
/// The root page table of every guest.
pub(crate) const ROOT_TABLE: u64 = TABLES;

/// Selectors; fixed by the way `syscall` and `sysretq` compute them from [`STAR`].
pub(crate) const KERNEL_CODE: u16 = 0x10;
/// Ring-3 stack and data.
pub(crate) const USER_DATA: u16 = 0x28 | 3;
/// Ring-3 code.
pub(crate) const USER_CODE: u16 = 0x30 | 3;
/// The task state segment.
pub(crate) const TASK: u16 = 0x40;

/// IA32_STAR: `syscall` loads CS 0x10 and SS 0x18, `sysretq` CS 0x33 and SS 0x2b.
pub(crate) const STAR: u64 = 0x0023_0010_0000_0000;
/// IA32_FMASK: `syscall` clears TF, DF, NT and AC.
pub(crate) const SFMASK: u32 = 0x4_4500;

/// Last byte of the GDT, relative to its start.
pub(crate) const GDT_LIMIT: u16 = 10 * 8 - 1;
/// Last byte of the IDT: the 32 exceptions, no interrupts.
pub(crate) const IDT_LIMIT: u16 = 32 * 16 - 1;
/// Last byte of the TSS: no I/O permission bitmap, so that ring 3 has no ports.
pub(crate) const TSS_LIMIT: u16 = 104 - 1;

/// Interrupt stack table entries (1-based, as in a gate).
const IST_PAGE_FAULT: usize = 1;
const IST_DOUBLE_FAULT: usize = 2;
const IST_USER: usize = 3;

const PAGE_FAULT: usize = 14;
const DOUBLE_FAULT: usize = 8;
/// Exceptions that go straight to ring 3: #DE #DB #BP #OF #BR #UD #NM #TS #NP #SS #GP #MF #AC #XM.
const USER_VECTORS: [usize; 14] = [0, 1, 3, 4, 5, 6, 7, 10, 11, 12, 13, 16, 17, 19];

/// The GDT: null, null, kernel code and data, null, user data and code, null, TSS (two entries).
pub(crate) fn gdt() -> [u64; 10] {
    let tss_low = u64::from(TSS_LIMIT) | (TSS & 0xff_ffff) << 16 | 0x8b << 40 | (TSS >> 24 & 0xff) << 56;
    [
        0,
        0,
        0x00af_9b00_0000_ffff,
        0x00cf_9300_0000_ffff,
        0,
        0x00cf_f300_0000_ffff,
        0x00af_fb00_0000_ffff,
        0,
        tss_low,
        TSS >> 32,
    ]
}

/// The TSS (Intel SDM 3A, 8.7): stacks for ring 0 and the interrupt stack table.
pub(crate) fn tss() -> [u8; TSS_LIMIT as usize + 1] {
    let mut tss = [0; TSS_LIMIT as usize + 1];
    let mut put = |offset: usize, value: u64| tss[offset..offset + 8].copy_from_slice(&value.to_le_bytes());
    put(4, PAGE_FAULT_STACK + PAGE);
    for (ist, top) in [
        (IST_PAGE_FAULT, PAGE_FAULT_STACK + PAGE),
        (IST_DOUBLE_FAULT, DOUBLE_FAULT_STACK + PAGE),
        (IST_USER, layout::FAULT_STACK + layout::FAULT_STACK_SIZE),
    ] {
        put(36 + 8 * (ist - 1), top);
    }
    tss[102..104].copy_from_slice(&(TSS_LIMIT + 1).to_le_bytes());
    tss
}

/// The IDT. Page and double faults: ring-0 interrupt gates. The rest: ring-3 trap gates on the fault stack.
pub(crate) fn idt(gates: &Gates) -> [[u64; 2]; 32] {
    const INTERRUPT_GATE: u64 = 0x8e;
    const USER_TRAP_GATE: u64 = 0xef;
    let mut idt = [[0; 2]; 32];
    for vector in USER_VECTORS {
        idt[vector] = gate(gates.vector(vector), USER_CODE, IST_USER, USER_TRAP_GATE);
    }
    idt[PAGE_FAULT] = gate(gates.page_fault(), KERNEL_CODE, IST_PAGE_FAULT, INTERRUPT_GATE);
    idt[DOUBLE_FAULT] = gate(gates.double_fault(), KERNEL_CODE, IST_DOUBLE_FAULT, INTERRUPT_GATE);
    idt
}

fn gate(target: u64, selector: u16, ist: usize, kind: u64) -> [u64; 2] {
    let low = target & 0xffff
        | u64::from(selector) << 16
        | (ist as u64) << 32
        | kind << 40
        | (target >> 16 & 0xffff) << 48;
    [low, target >> 32]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn syscall_selectors_follow_from_star() {
        let syscall = (STAR >> 32 & 0xffff) as u16;
        let sysret = (STAR >> 48) as u16;
        assert_eq!(syscall, KERNEL_CODE);
        assert_eq!(sysret + 8, USER_DATA);
        assert_eq!(sysret + 16, USER_CODE);
    }

    #[test]
    fn descriptors_have_the_privilege_of_their_selectors_and_need_no_write() {
        let gdt = gdt();
        for (selector, dpl) in [(KERNEL_CODE, 0), (KERNEL_CODE + 8, 0), (USER_DATA, 3), (USER_CODE, 3)] {
            let descriptor = gdt[usize::from(selector / 8)];
            assert_eq!(descriptor >> 45 & 3, dpl, "{selector:#x}");
            assert_eq!(descriptor >> 40 & 1, 1, "{selector:#x} has its accessed bit");
            assert_eq!(descriptor >> 47 & 1, 1, "{selector:#x} is present");
        }
        let tss = gdt[usize::from(TASK / 8)];
        assert_eq!(tss >> 40 & 0xff, 0x8b, "present, busy 64-bit TSS");
        assert_eq!((tss >> 16 & 0xff_ffff) | (tss >> 56) << 24, TSS);
    }

    #[test]
    fn only_page_and_double_faults_enter_ring_0() {
        let idt = idt(&Gates::load());
        for (vector, [low, high]) in idt.into_iter().enumerate() {
            let target = low & 0xffff | (low >> 48) << 16 | high << 32;
            match vector {
                PAGE_FAULT | DOUBLE_FAULT => {
                    assert_eq!(low >> 16 & 0xffff, u64::from(KERNEL_CODE));
                    assert_eq!(low >> 45 & 3, 0);
                    assert!((GATES..GATES + PAGE).contains(&target), "{target:#x}");
                }
                _ if USER_VECTORS.contains(&vector) => {
                    assert_eq!(low >> 16 & 0xffff, u64::from(USER_CODE));
                    assert_eq!(low >> 45 & 3, 3);
                    assert!((layout::GATE_CODE..layout::GATE_CODE + PAGE).contains(&target), "{target:#x}");
                }
                _ => assert_eq!(low, 0, "vector {vector} is not present"),
            }
            if low != 0 {
                assert_ne!(low >> 32 & 7, 0, "vector {vector} has a stack of its own");
            }
        }
    }
}
