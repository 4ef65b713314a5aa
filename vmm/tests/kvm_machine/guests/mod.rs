//! Guests, assembled into this test: position-independent blobs that end up at [`CODE`] of an image.

use std::arch::global_asm;
use std::mem::offset_of;

use weir_abi::{BootInfo, control, layout, trap::offset};

/// Where a guest's own code is.
pub(crate) const CODE: u64 = 0x20_0000;
/// Where the runtime that all guests share is: [`REPORT_FAULT`] and friends.
pub(crate) const RUNTIME: u64 = 0x21_0000;
/// Two pages to write to.
pub(crate) const DATA: u64 = 0x22_0000;
/// One page that is read-only.
pub(crate) const RODATA: u64 = 0x23_0000;
/// Exception handler: EXITs as FAULTED with the trap area's facts in hex.
pub(crate) const REPORT_FAULT: u64 = RUNTIME;
/// Jumped to with RAX: EXITs as FAULTED with its value in hex.
pub(crate) const REPORT: u64 = RUNTIME + 0x100;
/// Called with RAX: appends it in hex at R14.
pub(crate) const HEX: u64 = RUNTIME + 0x180;
/// Jumped to: EXITs as FAULTED with the text from DATA to R14.
pub(crate) const FINISH: u64 = RUNTIME + 0x1c0;

/// Declares a guest: `guest!(name, "assembler", …)`. Its text may use the constants below in braces.
macro_rules! guest {
    ($name:ident, $($line:expr),+ $(,)?) => {
        pub(crate) mod $name {
            use super::*;

            global_asm!(
                concat!(".pushsection .rodata.guests, \"a\", @progbits\n.balign 16\n.globl guest_", stringify!($name),
                    "\n.hidden guest_", stringify!($name), "\nguest_", stringify!($name), ":"),
                $($line,)+
                concat!(".globl guest_", stringify!($name), "_end\n.hidden guest_", stringify!($name),
                    "_end\nguest_", stringify!($name), "_end:\n.popsection"),
                "/* {strings} {strings_length} {heap} {stack} {tsc_hz} {tsc_base} {gate_code} {system} {system_gates} */",
                "/* {system_tables} {fault_stack} {virtio_net} {offset_rip} {offset_rsp} {offset_vector} */",
                "/* {offset_in_fault} {hex} {finish} {discard} {generation} {vm_id} */",
                "/* {trap} {control} {park} {ready} {log} {exit} {boot} {data} {rodata} {report_fault} {report} */",
                "/* {syscall_handler} {syscall_rip} {syscall_rflags} {fault_handler} {in_fault} {rip} {vector} */",
                trap = const layout::TRAP_AREA,
                control = const layout::CONTROL,
                park = const layout::CONTROL + control::PARK,
                ready = const layout::CONTROL + control::READY,
                log = const layout::CONTROL + control::LOG,
                exit = const layout::CONTROL + control::EXIT,
                discard = const layout::CONTROL + control::DISCARD,
                generation = const layout::BOOT_INFO + offset_of!(BootInfo, generation) as u64,
                vm_id = const layout::BOOT_INFO + offset_of!(BootInfo, vm_id) as u64,
                boot = const layout::BOOT_INFO,
                data = const DATA,
                rodata = const RODATA,
                report_fault = const REPORT_FAULT,
                report = const REPORT,
                syscall_handler = const layout::TRAP_AREA + offset::SYSCALL_HANDLER as u64,
                syscall_rip = const layout::TRAP_AREA + offset::SYSCALL_RIP as u64,
                syscall_rflags = const layout::TRAP_AREA + offset::SYSCALL_RFLAGS as u64,
                fault_handler = const layout::TRAP_AREA + offset::FAULT_HANDLER as u64,
                in_fault = const layout::TRAP_AREA + offset::IN_FAULT as u64,
                rip = const layout::TRAP_AREA + offset::RIP as u64,
                vector = const layout::TRAP_AREA + offset::VECTOR as u64,
                offset_rip = const offset::RIP,
                offset_rsp = const offset::RSP,
                offset_vector = const offset::VECTOR,
                offset_in_fault = const offset::IN_FAULT,
                hex = const HEX,
                finish = const FINISH,
                gate_code = const layout::GATE_CODE,
                system = const layout::SYSTEM,
                system_gates = const layout::SYSTEM + 0x3000,
                system_tables = const layout::SYSTEM_END - 8,
                fault_stack = const layout::FAULT_STACK,
                virtio_net = const layout::VIRTIO_NET,
                heap = const layout::BOOT_INFO + offset_of!(BootInfo, heap) as u64,
                stack = const layout::BOOT_INFO + offset_of!(BootInfo, stack) as u64,
                tsc_hz = const layout::BOOT_INFO + offset_of!(BootInfo, tsc_hz) as u64,
                tsc_base = const layout::BOOT_INFO + offset_of!(BootInfo, tsc_base) as u64,
                strings = const offset_of!(BootInfo, strings),
                strings_length = const offset_of!(BootInfo, strings_length),
            );

            /// The guest's code.
            pub(crate) fn code() -> &'static [u8] {
                unsafe extern "C" {
                    #[link_name = concat!("guest_", stringify!($name))]
                    static START: u8;
                    #[link_name = concat!("guest_", stringify!($name), "_end")]
                    static END: u8;
                }
                let (start, end) = (&raw const START, &raw const END);
                // SAFETY: labels around bytes of one read-only section, in this order, as written above.
                unsafe { std::slice::from_raw_parts(start, end as usize - start as usize) }
            }
        }
    };
}

/// Writes the bytes between two labels to a control register.
macro_rules! send {
    ($register:literal, $from:literal, $to:literal) => {
        concat!(
            "lea rax, [rip + ",
            $from,
            "]\n lea rdx, [rip + ",
            $to,
            "]\n sub rdx, rax\n shl rdx, 48\n or rax, rdx\n",
            "mov ecx, {",
            $register,
            "}\n mov [rcx], rax\n"
        )
    };
}

/// From here on faults are reported by the runtime.
macro_rules! report_faults {
    () => {
        "mov ecx, {fault_handler}\n mov eax, {report_fault}\n mov [rcx], rax\n"
    };
}

/// Tells weir that the guest is READY.
macro_rules! ready {
    () => {
        "mov ecx, {ready}\n mov [rcx], rcx\n"
    };
}

/// Parks for so many nanoseconds; -1: until there is something to do.
macro_rules! park {
    ($nanos:literal) => {
        concat!("mov ecx, {park}\n mov rax, ", $nanos, "\n mov [rcx], rax\n")
    };
}

/// The time stamp counter in RAX.
macro_rules! rdtsc {
    () => {
        "rdtsc\n shl rdx, 32\n or rax, rdx\n"
    };
}

/// Reports RAX, ticks, as microseconds.
macro_rules! report_ticks {
    () => {
        concat!(
            "mov ecx, 1000000\n mul rcx\n mov ecx, {tsc_hz}\n div qword ptr [rcx]\n",
            "mov ecx, {report}\n jmp rcx\n"
        )
    };
}

/// Discards the pages that RAX says.
macro_rules! discard {
    () => {
        "mov ecx, {discard}\n mov [rcx], rax\n"
    };
}

pub(crate) mod basics;
pub(crate) mod calls;
pub(crate) mod common;
pub(crate) mod faults;
pub(crate) mod frozen;
pub(crate) mod misuse;
pub(crate) mod scripted;
