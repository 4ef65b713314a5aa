//! Every way to fault, as the guest's handler sees it.

use weir_abi::layout;
use weir_vmm::{CrashReason, ExitReason};

use super::guests::{CODE, DATA, RODATA, faults};
use super::harness::{Facts, Vm, fault, numbers};

/// Length of what every faulting guest does first.
const PROLOGUE: u64 = faults::PROLOGUE;

const PRESENT: u64 = 1;
const WRITE: u64 = 2;
const USER: u64 = 4;
const FETCH: u64 = 16;

/// Runs a guest whose faulting instruction is `offset` bytes behind the prologue; checks what is the same for all.
fn facts(code: &[u8], offset: u64) -> Facts {
    let facts = fault(code);
    assert_eq!((facts.cs, facts.ss), (0x33, 0x2b), "{facts:x?}");
    assert_eq!(facts.r15, 0x5eed, "registers are kept: {facts:x?}");
    assert_eq!(facts.rflags & 0x7202, 0x202, "IF, IOPL 0: {facts:x?}");
    assert_eq!(facts.rip, CODE + PROLOGUE + offset, "{facts:x?}");
    facts
}

#[track_caller]
fn exception(code: &[u8], offset: u64, vector: u64, error: u64) {
    let facts = facts(code, offset);
    assert_eq!((facts.vector, facts.error, facts.cr2), (vector, error, 0), "{facts:x?}");
}

#[test]
fn divide_error() {
    exception(faults::divide::code(), 4, 0, 0);
}

#[test]
fn undefined_instruction() {
    exception(faults::undefined::code(), 0, 6, 0);
}

#[test]
fn breakpoint() {
    exception(faults::breakpoint::code(), 1, 3, 0);
}

#[test]
fn single_step() {
    exception(faults::single_step::code(), 11, 1, 0);
}

#[test]
fn x87_error() {
    exception(faults::x87::code(), 17, 16, 0);
}

#[test]
fn privileged_instructions_are_general_protection_faults() {
    exception(faults::halt::code(), 0, 13, 0);
    exception(faults::clear_interrupts::code(), 0, 13, 0);
    exception(faults::port_out::code(), 0, 13, 0);
    exception(faults::port_in::code(), 0, 13, 0);
    exception(faults::load_cr3::code(), 0, 13, 0);
    exception(faults::read_msr::code(), 5, 13, 0);
}

#[test]
fn software_interrupts_reach_no_ring_0_gate() {
    for code in [faults::interrupt_80::code(), faults::interrupt_14::code()] {
        let facts = fault(code);
        // #GP; a software KVM may not know the instruction and say #UD. QEMU's TCG has its own idea of error code and RIP.
        assert!([6, 13].contains(&facts.vector), "{facts:x?}");
    }
}

#[test]
fn non_canonical_addresses() {
    exception(faults::non_canonical::code(), 10, 13, 0);
    let stack = facts(faults::non_canonical_stack::code(), 10);
    // #SS; QEMU's TCG says #GP.
    assert!([12, 13].contains(&stack.vector), "{stack:x?}");
    assert_eq!((stack.error, stack.rsp), (0, 0x9000_0000_0000));
}

#[track_caller]
fn page_fault(code: &[u8], offset: u64, error: u64, address: u64) {
    let facts = facts(code, offset);
    assert_eq!((facts.vector, facts.error, facts.cr2), (14, error | USER, address), "{facts:x?}");
}

/// As [`page_fault`], for a jump: the fault is at its target.
#[track_caller]
fn jump_fault(code: &[u8], error: u64, target: u64) {
    let facts = fault(code);
    assert_eq!((facts.vector, facts.error), (14, error | USER | FETCH), "{facts:x?}");
    assert_eq!((facts.rip, facts.cr2), (target, target), "{facts:x?}");
}

#[test]
fn null_is_not_mapped() {
    page_fault(faults::read_null::code(), 2, 0, 0);
    page_fault(faults::write_null::code(), 2, WRITE, 8);
    jump_fault(faults::jump_null::code(), 0, 0);
}

#[test]
fn what_is_read_only_stays_so() {
    let here = CODE + PROLOGUE + 7;
    page_fault(faults::write_code::code(), 7, PRESENT | WRITE, here);
    page_fault(faults::write_rodata::code(), 5, PRESENT | WRITE, RODATA);
    page_fault(faults::write_boot_info::code(), 5, PRESENT | WRITE, layout::BOOT_INFO);
    page_fault(faults::write_gates::code(), 5, PRESENT | WRITE, layout::GATE_CODE);
}

#[test]
fn data_is_not_executable() {
    jump_fault(faults::execute_data::code(), PRESENT, DATA);
    jump_fault(faults::execute_rodata::code(), PRESENT, RODATA);
    for code in [faults::execute_stack::code(), faults::execute_heap::code()] {
        let facts = fault(code);
        assert_eq!((facts.vector, facts.error), (14, PRESENT | USER | FETCH), "{facts:x?}");
        assert_eq!(facts.cr2, facts.rip, "{facts:x?}");
    }
}

#[test]
fn the_system_area_is_out_of_reach() {
    page_fault(faults::read_gdt::code(), 5, PRESENT, layout::SYSTEM);
    page_fault(faults::write_gdt::code(), 5, PRESENT | WRITE, layout::SYSTEM);
    page_fault(faults::read_tables::code(), 5, 0, layout::SYSTEM_END - 8);
    jump_fault(faults::execute_ring_0_gate::code(), PRESENT, layout::SYSTEM + 0x3000);
}

#[test]
fn nothing_else_is_mapped() {
    jump_fault(faults::jump_unmapped::code(), 0, 0xc000_0000);
    page_fault(faults::fault_stack_overflow::code(), 5, WRITE, layout::FAULT_STACK - 8);
    page_fault(faults::absent_device::code(), 5, 0, layout::VIRTIO_NET);
    page_fault(faults::behind_memory::code(), 9, WRITE, 4 << 20);
}

#[test]
fn the_stack_is_guarded_on_both_sides() {
    let overflow = facts(faults::stack_overflow::code(), 8);
    assert_eq!((overflow.vector, overflow.error), (14, USER | WRITE));
    assert_eq!(overflow.cr2, overflow.rsp - 8);
    let behind = facts(faults::behind_stack::code(), 9);
    assert_eq!((behind.vector, behind.error), (14, USER));
}

#[test]
fn a_handler_may_resume() {
    let (reason, _) = Vm::start(faults::resume::code()).finish();
    assert_eq!(numbers(&reason), [4]);
}

#[test]
fn a_second_fault_ends_the_vm() {
    for code in [
        faults::fault_without_handler::code(),
        faults::page_fault_without_handler::code(),
        faults::fault_in_handler::code(),
        faults::page_fault_in_handler::code(),
        faults::page_fault_in_page_fault_handler::code(),
    ] {
        let (reason, _) = Vm::start(code).finish();
        assert_eq!(reason, ExitReason::Crashed(CrashReason::DoubleFault));
    }
}

#[test]
fn a_handler_at_an_impossible_address_ends_the_vm() {
    let (reason, _) = Vm::start(faults::non_canonical_handler::code()).finish();
    assert!(matches!(reason, ExitReason::Crashed(_)), "{reason:?}");
}
