//! Memory that a guest gives back.

use weir_vmm::{CrashReason, ExitReason};

use super::guests::frozen;
use super::harness::{Vm, numbers};

#[test]
fn a_discarded_page_is_zero_and_can_be_written_again() {
    assert_eq!(numbers(&Vm::start(frozen::discard::code()).finish().0), [78]);
}

#[test]
fn what_is_no_page_of_the_heap_ends_the_vm() {
    let guests = [
        frozen::discard_nothing::code(),
        frozen::discard_unaligned::code(),
        frozen::discard_tables::code(),
        frozen::discard_beyond::code(),
    ];
    for code in guests {
        match Vm::start(code).finish().0 {
            ExitReason::Crashed(CrashReason::UnexpectedExit(text)) => {
                assert!(text.starts_with("DISCARD of ") && text.contains("not pages of the heap"), "{text}");
            }
            other => panic!("{other:?}"),
        }
    }
}
