//! `syscall` into the guest's own handler and back, the same whether it arrives in ring 0 or in ring 3.

use weir_vmm::{CrashReason, ExitReason};

use super::guests;
use super::harness::{Vm, fault, numbers};

const CARRY: u64 = 1;
const DIRECTION: u64 = 1 << 10;
const ALIGNMENT: u64 = 1 << 18;

#[test]
fn the_handler_runs_in_ring_3_and_returns() {
    let (reason, _) = Vm::start(guests::calls::syscall::code()).finish();
    let [cs, saved, own, after, kept] = numbers(&reason)[..] else { panic!("five numbers: {reason:?}") };
    assert_eq!(cs, 0x33);
    assert_eq!(saved, CARRY | DIRECTION | ALIGNMENT, "the caller's flags are saved");
    assert_eq!(own & !ALIGNMENT, 0, "the handler's direction and trap flags are clear");
    assert_eq!(after, saved, "and restored");
    assert_eq!(kept, 0x101, "stack pointer and other registers are the caller's");
}

#[test]
fn without_a_handler_it_is_a_jump_to_null() {
    let facts = fault(guests::calls::syscall_without_handler::code());
    assert_eq!((facts.vector, facts.rip, facts.cs), (14, 0, 0x33), "{facts:x?}");
    assert_eq!(facts.r15, 0x5eed);
}

#[test]
fn a_handler_at_an_impossible_address_is_the_guests_end() {
    let (reason, _) = Vm::start(guests::calls::syscall_to_non_canonical_handler::code()).finish();
    assert_eq!(reason, ExitReason::Crashed(CrashReason::DoubleFault));
}
