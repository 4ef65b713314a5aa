//! The machine on a real KVM, with guests of a few instructions each. Needs /dev/kvm, nothing else: this binary also
//! runs by itself in an initramfs on emulated SVM.

#[path = "../../src/image/testing.rs"]
mod elf;
mod guests;
mod harness;

use harness::Vm;
use weir_vmm::{ExitReason, VmEvent};

#[test]
fn a_guest_says_ready_logs_and_exits() {
    let vm = Vm::start(guests::hello::code());
    let (reason, events) = vm.finish();
    assert_eq!(reason, ExitReason::Exited(42));
    assert_eq!(events, [VmEvent::Ready, VmEvent::Log("two\\nlines\\u{1b}[2J".into())]);
}
