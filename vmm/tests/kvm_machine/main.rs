//! The machine on a real KVM, with guests of a few instructions each. Needs /dev/kvm, nothing else: this binary also
//! runs by itself in an initramfs on emulated SVM.

mod discard;
#[path = "../../src/image/testing.rs"]
mod elf;
mod exceptions;
mod guests;
mod harness;
mod hostile;
mod idle;
mod lifecycle;
mod network;
mod snapshot;
mod syscalls;
