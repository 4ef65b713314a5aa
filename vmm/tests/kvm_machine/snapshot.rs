//! Templates, clones and resets.

use std::fs::File;
use std::os::fd::AsFd;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use weir_vmm::{BootOrder, CloneOrder, ExitReason, PageRun, Sharing, VmCommand, VmEvent, VmId, event};

use super::guests::{self, frozen};
use super::harness::{Vm, image, numbers, sealed, spec};

/// A frozen guest.
struct Snapshot {
    memory: File,
    state: Vec<u8>,
}

fn memory(size: u64) -> File {
    let flags = MemfdFlags::ALLOW_SEALING | MemfdFlags::CLOEXEC;
    let memory = File::from(memfd_create("memory", flags).expect("make a memfd"));
    memory.set_len(size).expect("size it");
    memory
}

fn seal(memory: &File) {
    fcntl_add_seals(memory, SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE).expect("seal it");
}

impl Snapshot {
    fn of(code: &[u8]) -> Self {
        let memory = memory(spec().memory);
        let template = Vm::blank();
        let order = VmCommand::Boot(Box::new(BootOrder { spec: spec(), template: true }));
        let image = sealed(&image(code).build());
        event::command(&template.weir, &order, &[image.as_fd(), memory.as_fd()]).expect("order a template");
        assert_eq!(template.event(), Some(VmEvent::Ready));
        let Some(VmEvent::Frozen(state)) = template.event() else { panic!("{:?}", template.reason()) };
        assert_eq!(template.finish(), (ExitReason::Stopped, vec![]));
        seal(&memory);
        Self { memory, state }
    }

    fn order(&self) -> CloneOrder {
        CloneOrder {
            id: VmId(99),
            memory: spec().memory,
            net: None,
            sharing: Sharing::Private,
            state: self.state.clone(),
            log_lines: 1000,
            working_set: vec![PageRun { first: 0x222, count: 2 }],
        }
    }

    fn thaw(&self) -> Vm {
        let vm = self.thaw_as(self.order());
        assert_eq!(vm.event(), Some(VmEvent::Ready));
        vm
    }

    fn thaw_as(&self, order: CloneOrder) -> Vm {
        let vm = Vm::blank();
        let command = VmCommand::Clone(Box::new(order));
        event::command(&vm.weir, &command, &[self.memory.as_fd()]).expect("order a clone");
        vm
    }

    fn refused(&self, change: impl FnOnce(&mut CloneOrder)) -> String {
        let mut order = self.order();
        change(&mut order);
        match self.thaw_as(order).finish() {
            (ExitReason::Host(text), events) if events.is_empty() => text,
            other => panic!("{other:?}"),
        }
    }
}

fn logs(vm: &Vm, lines: &[&str]) {
    for line in lines {
        assert_eq!(vm.event(), Some(VmEvent::Log((*line).to_owned())));
    }
}

#[test]
fn registers_and_memory_continue_and_boot_info_is_new() {
    let numbers = numbers(&Snapshot::of(frozen::registers::code()).thaw().finish().0);
    let [rbx, r15, flags, low, high, mxcsr, pushed, generation, id] = numbers[..] else {
        panic!("{numbers:?}")
    };
    assert_eq!((rbx, r15), (0x1122_3344_5566_7788, 0x99aa_bbcc_ddee_ff00));
    assert_eq!((low, high), (rbx, r15));
    assert_eq!((mxcsr, pushed), (0x1fa0, 0x1fa0));
    // Carry and direction, besides interrupts and the bit that is always set; IOPL is 0.
    assert_eq!(flags & 0x3fff & !0xd4, 0x603 & 0x3fff, "{flags:#x}");
    assert_eq!((generation, id), (2, 99));
}

#[test]
fn clones_do_not_see_each_others_writes() {
    let snapshot = Snapshot::of(frozen::tally::code());
    let vms: Vec<Vm> = (0..5).map(|_| snapshot.thaw()).collect();
    for vm in &vms {
        logs(vm, &["1", "2"]);
    }
    // Nor does the snapshot.
    logs(&snapshot.thaw(), &["1", "2"]);
}

#[test]
fn a_reset_takes_a_parked_guest_back_again_and_again() {
    let vm = Snapshot::of(frozen::tally::code()).thaw();
    for _ in 0..20 {
        logs(&vm, &["1", "2"]);
        event::command(&vm.weir, &VmCommand::Reset, &[]).unwrap();
        assert_eq!(vm.event(), Some(VmEvent::Ready));
    }
}

#[test]
fn a_reset_takes_a_spinning_guest_back_again_and_again() {
    let vm = Snapshot::of(frozen::tally_and_spin::code()).thaw();
    for _ in 0..20 {
        logs(&vm, &["1"]);
        event::command(&vm.weir, &VmCommand::Reset, &[]).unwrap();
        assert_eq!(vm.event(), Some(VmEvent::Ready));
    }
}

#[test]
fn what_follows_a_reset_at_once_is_heard_though_the_guest_spins() {
    let snapshot = Snapshot::of(frozen::tally_and_spin::code());
    let vm = Vm::blank();
    // All of it waits before the machine is there to be kicked, or comes while it resets.
    event::command(&vm.weir, &VmCommand::Clone(Box::new(snapshot.order())), &[snapshot.memory.as_fd()])
        .unwrap();
    event::command(&vm.weir, &VmCommand::Reset, &[]).unwrap();
    event::command(&vm.weir, &VmCommand::Stop, &[]).unwrap();
    assert_eq!(vm.finish().0, ExitReason::Stopped);
}

#[test]
fn a_booted_vm_has_nothing_to_go_back_to() {
    let vm = Vm::start(guests::basics::park_forever::code());
    assert_eq!(vm.event(), Some(VmEvent::Ready));
    event::command(&vm.weir, &VmCommand::Reset, &[]).unwrap();
    assert_eq!(vm.finish(), (ExitReason::Stopped, vec![]));
}

#[test]
fn a_clone_on_shared_memory_leaves_what_it_wrote() {
    let mut snapshot = Snapshot::of(frozen::tally::code());
    let shared = memory(spec().memory);
    std::io::copy(&mut &snapshot.memory, &mut &shared).unwrap();
    snapshot.memory = shared;
    let vm = snapshot.thaw_as(CloneOrder { sharing: Sharing::Shared, ..snapshot.order() });
    assert_eq!(vm.event(), Some(VmEvent::Ready));
    logs(&vm, &["1", "2"]);
    // The next one goes on from there.
    let vm = snapshot.thaw_as(CloneOrder { sharing: Sharing::Shared, ..snapshot.order() });
    assert_eq!(vm.event(), Some(VmEvent::Ready));
    logs(&vm, &["3", "4"]);
}

#[test]
fn what_is_no_snapshot_is_refused() {
    let snapshot = Snapshot::of(frozen::tally::code());
    assert!(snapshot.refused(|order| order.state.clear()).starts_with("snapshot: decode state"));
    assert!(snapshot.refused(|order| order.state.push(0)).contains("1 bytes too many"));
    assert!(snapshot.refused(|order| order.state[0] ^= 0x40).contains("state has format"));
    assert!(snapshot.refused(|order| order.memory *= 2).contains("guest memory 8388608"));
    let unsealed = Snapshot { memory: memory(spec().memory), state: snapshot.state.clone() };
    assert!(unsealed.refused(|_| {}).contains("not sealed"));
    for length in 1..snapshot.state.len() {
        let text = snapshot.refused(|order| order.state.truncate(length));
        assert!(text.starts_with("snapshot: "), "{length}: {text}");
    }
}

/// Whatever a template's process may have become: a clone of it does no more than any guest, and always ends when told.
#[test]
fn a_forged_state_hurts_only_its_own_clone() {
    let snapshot = Snapshot::of(frozen::tally::code());
    for at in 0..snapshot.state.len().min(400) {
        let mut order = snapshot.order();
        order.state[at] ^= 1 << (at % 8);
        let vm = snapshot.thaw_as(order);
        // It may have ended by itself.
        let _ = event::command(&vm.weir, &VmCommand::Stop, &[]);
        drop(vm.reason());
    }
    logs(&snapshot.thaw(), &["1", "2"]);
}

#[test]
fn a_blank_vm_is_told_once_what_it_is() {
    let vm = Snapshot::of(frozen::tally::code()).thaw();
    let order = BootOrder { spec: spec(), template: false };
    event::command(&vm.weir, &VmCommand::Boot(Box::new(order)), &[]).unwrap();
    match vm.finish().0 {
        ExitReason::Host(text) => assert!(text.contains("second order"), "{text}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_blank_vm_ends_when_weir_does_or_the_order_is_incomplete() {
    let (reason, weir) = Vm::blank().split();
    drop(weir);
    assert_eq!(reason(), ExitReason::Stopped);
    let vm = Vm::blank();
    let order = BootOrder { spec: spec(), template: false };
    event::command(&vm.weir, &VmCommand::Boot(Box::new(order)), &[]).unwrap();
    match vm.finish().0 {
        ExitReason::Host(text) => assert!(text.contains("0 file descriptors"), "{text}"),
        other => panic!("{other:?}"),
    }
}
