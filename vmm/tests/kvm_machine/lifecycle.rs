//! Boot, control page, parking, stopping.

use std::io::Write;

use weir_abi::{ABI_VERSION, BootInfo, control, layout};
use weir_vmm::{ExitReason, VmCommand, VmEvent, event};

use super::guests;
use super::harness::{Vm, image, numbers, sealed, spec};

fn end(code: &[u8]) -> ExitReason {
    Vm::start(code).finish().0
}

#[test]
fn a_guest_says_ready_once_logs_and_exits() {
    let (reason, events) = Vm::start(guests::basics::hello::code()).finish();
    assert_eq!(reason, ExitReason::Exited(42));
    assert_eq!(events, [VmEvent::Ready, VmEvent::Log("two\\nlines\\u{1b}[2J".into())]);
}

#[test]
fn the_control_page_tells_the_abi_version() {
    assert_eq!(numbers(&end(guests::basics::version::code())), [u64::from(ABI_VERSION)]);
}

#[test]
fn boot_info_carries_environment_and_arguments() {
    assert_eq!(
        end(guests::basics::strings::code()),
        ExitReason::Panicked("NAME=value\\u{0}one\\u{0}".into())
    );
}

#[test]
fn heap_and_stack_are_there_to_the_last_word() {
    // Small pages only; an unaligned end; and large pages in the middle.
    for memory in [4 << 20, (9 << 20) - 4096, 64 << 20] {
        let spec = weir_vmm::VmSpec { memory, ..spec() };
        let vm = Vm::with(spec, sealed(&image(guests::basics::memory::code()).build()), |_| {});
        assert_eq!(vm.finish().0, ExitReason::Exited(0), "{memory} bytes");
    }
}

#[test]
fn the_clock_base_is_the_guests_own_counter() {
    let micros = numbers(&end(guests::basics::clock::code()))[0];
    assert!(micros < 60_000_000, "{micros} us from the clock base to the first instruction");
}

#[test]
fn park_lasts_until_its_deadline() {
    let micros = numbers(&end(guests::basics::park_20_ms::code()))[0];
    assert!(micros >= 20_000, "{micros} us");
}

#[test]
fn park_yield_returns_at_once() {
    assert_eq!(end(guests::basics::park_yield::code()), ExitReason::Exited(0));
}

#[test]
fn stop_ends_a_spinning_guest() {
    let vm = Vm::start(guests::basics::spin::code());
    assert_eq!(vm.event(), Some(VmEvent::Ready));
    event::command(&vm.weir, &VmCommand::Stop, &[]).unwrap();
    assert_eq!(vm.finish(), (ExitReason::Stopped, vec![]));
}

#[test]
fn end_of_file_ends_a_spinning_guest() {
    let vm = Vm::start(guests::basics::spin::code());
    assert_eq!(vm.event(), Some(VmEvent::Ready));
    let (reason, weir) = vm.split();
    drop(weir);
    assert_eq!(reason(), ExitReason::Stopped);
}

#[test]
fn stop_ends_a_parked_guest() {
    let vm = Vm::start(guests::basics::park_forever::code());
    assert_eq!(vm.event(), Some(VmEvent::Ready));
    event::command(&vm.weir, &VmCommand::Stop, &[]).unwrap();
    assert_eq!(vm.finish(), (ExitReason::Stopped, vec![]));
}

#[test]
fn end_of_file_ends_a_parked_guest() {
    let vm = Vm::start(guests::basics::park_forever::code());
    assert_eq!(vm.event(), Some(VmEvent::Ready));
    let (reason, weir) = vm.split();
    drop(weir);
    assert_eq!(reason(), ExitReason::Stopped);
}

#[test]
fn a_stop_from_before_the_start_counts() {
    let image = sealed(&image(guests::basics::spin::code()).build());
    let vm = Vm::with(spec(), image, |weir| event::command(weir, &VmCommand::Stop, &[]).unwrap());
    assert_eq!(vm.finish(), (ExitReason::Stopped, vec![]));
}

#[test]
fn many_machines_stop_whatever_the_moment() {
    // The stop comes at another instant of building and running each time; none may be lost.
    let vms: Vec<_> = (0..32).map(|_| Vm::start(guests::basics::spin::code())).collect();
    for vm in &vms {
        event::command(&vm.weir, &VmCommand::Stop, &[]).unwrap();
    }
    for vm in vms {
        assert_eq!(vm.finish().0, ExitReason::Stopped);
    }
}

#[test]
fn a_flood_of_lines_is_cut_and_reported() {
    let (reason, events) = Vm::start(guests::basics::flood::code()).finish();
    assert_eq!(reason, ExitReason::Exited(0));
    let mut lines = 0;
    let mut dropped = 0;
    for event in events {
        let VmEvent::Log(text) = event else { panic!("only lines: {event:?}") };
        match text.strip_prefix("[weir: ").and_then(|rest| rest.strip_suffix(" log lines dropped]")) {
            Some(count) => dropped += count.parse::<u32>().unwrap(),
            None => {
                assert_eq!(text, "line");
                lines += 1;
            }
        }
    }
    assert_eq!(lines + dropped, 5000, "every line arrives or is counted");
    assert!(dropped > 0);
}

#[test]
fn a_deaf_weir_holds_nobody_up() {
    let vm = Vm::start(guests::basics::flood::code());
    assert_eq!(vm.reason(), ExitReason::Exited(0));
}

#[test]
fn what_cannot_become_a_vm_is_refused() {
    let good = || sealed(&image(guests::basics::hello::code()).build());
    let refused = |spec, image| match Vm::with(spec, image, |_| {}).finish() {
        (ExitReason::Refused(text), events) if events.is_empty() => text,
        other => panic!("not refused: {other:?}"),
    };
    let spec = |change: fn(&mut weir_vmm::VmSpec)| {
        let mut spec = spec();
        change(&mut spec);
        spec
    };
    let no_elf = refused(spec(|_| {}), sealed(b"#!/bin/sh"));
    assert_eq!(no_elf, "image is not an ELF file");
    assert_eq!(refused(spec(|_| {}), sealed(b"")), "image is not an ELF file");
    assert!(refused(spec(|s| s.vcpus = 2), good()).contains("2 virtual cpus"));
    assert!(refused(spec(|s| s.memory = 0x23_0000), good()).contains("too small"));
    assert!(refused(spec(|s| s.memory = 0), good()).contains("too small"));
    assert!(refused(spec(|s| s.memory += 1), good()).contains("not a multiple of 4096"));
    assert!(refused(spec(|s| s.memory = u64::MAX - 4095), good()).contains("more than"));
    assert!(refused(spec(|s| s.env[0].0.clear()), good()).contains("name \"\" is empty"));
    let page = usize::try_from(layout::BOOT_INFO_SIZE).unwrap();
    let long = "x".repeat(page - size_of::<BootInfo>());
    let mut long_spec = self::spec();
    long_spec.args = vec![long];
    assert!(refused(long_spec, good()).contains("there is room for"));
}

#[test]
fn an_image_that_could_change_under_us_is_not_mapped() {
    let memfd = rustix::fs::memfd_create("image", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    let mut file = std::fs::File::from(memfd);
    file.write_all(&image(guests::basics::hello::code()).build()).unwrap();
    let (reason, _) = Vm::with(spec(), file, |_| {}).finish();
    assert_eq!(reason, ExitReason::Host("map the image: not a memfd sealed against change".into()));
}

#[test]
fn log_lines_are_cut_at_their_limit() {
    let vm = Vm::start(guests::misuse::log_too_long::code());
    let Some(VmEvent::Log(line)) = vm.event() else { panic!("a line") };
    assert_eq!(line, "\\u{0}".repeat(control::LOG_MAX));
}
