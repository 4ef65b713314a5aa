//! Guests, assembled into this test: position-independent blobs that end up at [`CODE`] of an image.

use std::arch::global_asm;

use weir_abi::{control, layout, trap::offset};

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
                "/* {trap} {control} {park} {ready} {log} {exit} {boot} {data} {rodata} {report_fault} {report} */",
                "/* {syscall_handler} {syscall_rip} {syscall_rflags} {fault_handler} {in_fault} {rip} {vector} */",
                trap = const layout::TRAP_AREA,
                control = const layout::CONTROL,
                park = const layout::CONTROL + control::PARK,
                ready = const layout::CONTROL + control::READY,
                log = const layout::CONTROL + control::LOG,
                exit = const layout::CONTROL + control::EXIT,
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

guest!(
    runtime,
    // REPORT_FAULT: the eight facts from `vector` to `ss`, then R15 and RSP as they were on entry.
    "mov r13, rsp",
    "mov r14d, {data}",
    "mov byte ptr [r14], 2",
    "inc r14",
    "mov esi, {vector}",
    "mov ebp, 8",
    "1: mov rax, [rsi]",
    "call 3f",
    "add rsi, 8",
    "dec ebp",
    "jnz 1b",
    "mov rax, r15",
    "call 3f",
    "mov rax, r13",
    "call 3f",
    "2: mov eax, {data}",
    "mov rdx, r14",
    "sub rdx, rax",
    "shl rdx, 48",
    "or rax, rdx",
    "mov edx, {exit}",
    "mov [rdx], rax",
    "ud2",
    // Appends RAX in hex and a space at R14.
    "3: mov r8d, 16",
    "4: rol rax, 4",
    "mov r9d, eax",
    "and r9d, 15",
    "cmp r9d, 10",
    "jb 5f",
    "add r9d, 39",
    "5: add r9d, 48",
    "mov [r14], r9b",
    "inc r14",
    "dec r8d",
    "jnz 4b",
    "mov byte ptr [r14], 32",
    "inc r14",
    "ret",
    // REPORT
    ".org guest_runtime + 0x100",
    "mov r14d, {data}",
    "mov byte ptr [r14], 2",
    "inc r14",
    "call 3b",
    "jmp 2b",
);

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

guest!(
    hello,
    "mov ecx, {ready}",
    "mov [rcx], rcx",
    "mov [rcx], rcx",
    send!("log", "2f", "3f"),
    send!("exit", "3f", "4f"),
    "ud2",
    "2: .ascii \"two\\nlines\\033[2J\"",
    "3: .byte 0\n.ascii \"42\"",
    "4:",
);
