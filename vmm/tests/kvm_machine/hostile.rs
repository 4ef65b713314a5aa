//! What no working guest does to the control page: that VM ends, with the reason.

use weir_vmm::{CrashReason, ExitReason};

use super::guests;
use super::harness::{Vm, numbers};

#[track_caller]
fn crash(code: &[u8], expected: &str) {
    let (reason, events) = Vm::start(code).finish();
    let ExitReason::Crashed(CrashReason::UnexpectedExit(text)) = &reason else {
        panic!("{expected}: {reason:?}")
    };
    assert!(text.starts_with(expected), "{text:?} starts with {expected:?}");
    assert!(text.contains("(rip 0x200"), "{text:?} says where");
    assert_eq!(events, []);
}

#[test]
fn messages_outside_of_memory() {
    crash(guests::misuse::log_behind_memory::code(), "LOG of 16 bytes at 0x400000, outside of memory");
    crash(guests::misuse::log_across_the_end::code(), "LOG of 16 bytes at 0x3ffff8, outside of memory");
    crash(guests::misuse::log_at_the_end::code(), "LOG of 8 bytes at 0xffffffffffff, outside of memory");
    crash(guests::misuse::log_of_mmio::code(), "LOG of 8 bytes at 0xd0000000, outside of memory");
    crash(guests::misuse::exit_behind_memory::code(), "EXIT of 16 bytes at 0x400000, outside of memory");
}

#[test]
fn senseless_exits() {
    let end = |code| Vm::start(code).finish().0;
    let unexpected = |text: &str| ExitReason::Crashed(CrashReason::UnexpectedExit(text.into()));
    assert_eq!(end(guests::misuse::exit_empty::code()), unexpected("empty EXIT message"));
    assert_eq!(end(guests::misuse::exit_unknown::code()), unexpected("exit code \"\" is not a number"));
    assert_eq!(end(guests::misuse::exit_double_fault::code()), ExitReason::Crashed(CrashReason::DoubleFault));
}

#[test]
fn registers_that_are_not_there() {
    crash(guests::misuse::store_version::code(), "write of 8 bytes at offset 0x0 of the control page");
    crash(guests::misuse::store_unknown::code(), "write of 8 bytes at offset 0x800 of the control page");
    crash(guests::misuse::store_misaligned::code(), "write of 8 bytes at offset 0xc of the control page");
    crash(guests::misuse::store_short::code(), "write of 4 bytes at offset 0x8 of the control page");
    crash(guests::misuse::load_park::code(), "read of 8 bytes at offset 0x8 of the control page");
    crash(guests::misuse::load_short::code(), "read of 4 bytes at offset 0x0 of the control page");
}

#[test]
fn an_instruction_that_cannot_be_emulated_hurts_only_its_guest() {
    let (reason, _) = Vm::start(guests::misuse::odd_instruction::code()).finish();
    // KVM either gives up or lets the guest have #UD.
    let is_undefined = || numbers(&reason)[0] == 6;
    let is_emulation =
        matches!(&reason, ExitReason::Crashed(CrashReason::Emulation(text)) if text.contains("rip 0x2000"));
    assert!(is_emulation || is_undefined(), "{reason:?}");
}

#[test]
fn a_store_across_the_page_ends_the_vm() {
    let (reason, _) = Vm::start(guests::misuse::store_across_the_page::code()).finish();
    assert!(matches!(reason, ExitReason::Crashed(_)), "{reason:?}");
}
