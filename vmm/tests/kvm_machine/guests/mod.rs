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

pub(crate) mod frozen;

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
    // HEX
    ".org guest_runtime + 0x180",
    "jmp 3b",
    // FINISH
    ".org guest_runtime + 0x1c0",
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

guest!(version, "mov ecx, {control}", "mov rax, [rcx]", "mov ecx, {report}", "jmp rcx");

guest!(spin, "mov ecx, {ready}", "mov [rcx], rcx", "2: jmp 2b");

guest!(
    park_forever,
    "mov ecx, {ready}",
    "mov [rcx], rcx",
    "2: mov ecx, {park}",
    "mov rax, -1",
    "mov [rcx], rax",
    "jmp 2b"
);

guest!(
    // Wakes up every 10 ms.
    poll,
    "mov ecx, {ready}",
    "mov [rcx], rcx",
    "mov ecx, {park}",
    "mov rax, 10000000",
    "2: mov [rcx], rax",
    "jmp 2b"
);

guest!(
    // Reports how long a PARK of 20 ms took, in microseconds.
    park_20_ms,
    "rdtsc",
    "shl rdx, 32",
    "or rax, rdx",
    "mov r12, rax",
    "mov ecx, {park}",
    "mov rax, 20000000",
    "mov [rcx], rax",
    "rdtsc",
    "shl rdx, 32",
    "or rax, rdx",
    "sub rax, r12",
    "mov ecx, 1000000",
    "mul rcx",
    "mov ecx, {tsc_hz}",
    "div qword ptr [rcx]",
    "mov ecx, {report}",
    "jmp rcx",
);

guest!(
    // Yields a thousand times, then exits.
    park_yield,
    "mov ecx, {park}",
    "mov r12d, 1000",
    "xor eax, eax",
    "2: mov [rcx], rax",
    "dec r12d",
    "jnz 2b",
    send!("exit", "3f", "4f"),
    "3: .byte 0\n.ascii \"0\"",
    "4:",
);

guest!(
    // Reports microseconds from the boot info's clock base until now.
    clock,
    "rdtsc",
    "shl rdx, 32",
    "or rax, rdx",
    "mov ecx, {tsc_base}",
    "sub rax, [rcx]",
    "mov ecx, 1000000",
    "mul rcx",
    "mov ecx, {tsc_hz}",
    "div qword ptr [rcx]",
    "mov ecx, {report}",
    "jmp rcx",
);

guest!(
    // Reports a number of logged lines far above every limit, then exits.
    flood,
    "mov r12d, 5000",
    "5:",
    send!("log", "2f", "3f"),
    "dec r12d",
    "jnz 5b",
    send!("exit", "3f", "4f"),
    "2: .ascii \"line\"",
    "3: .byte 0\n.ascii \"0\"",
    "4:",
);

guest!(
    // Exits with the boot info's strings as its message; the code byte goes into the data page first.
    strings,
    "mov esi, {boot}",
    "mov eax, [rsi + {strings}]",
    "mov ecx, [rsi + {strings_length}]",
    "add rsi, rax",
    "mov edi, {data}",
    "mov byte ptr [rdi], 1",
    "inc rdi",
    "mov rdx, rcx",
    "inc rdx",
    "rep movsb",
    "shl rdx, 48",
    "mov eax, {data}",
    "or rax, rdx",
    "mov ecx, {exit}",
    "mov [rcx], rax",
);

guest!(
    // Writes and reads back the first and last word of the heap and of every 64 KiB of it, then the stack.
    memory,
    "mov esi, {heap}",
    "mov rdi, [rsi]",
    "mov rsi, [rsi + 8]",
    "2: cmp qword ptr [rdi], 0",
    "jne 9f",
    "mov [rdi], rdi",
    "cmp [rdi], rdi",
    "jne 9f",
    "add rdi, 0x10000",
    "cmp rdi, rsi",
    "jb 2b",
    "cmp qword ptr [rsi - 8], 0",
    "jne 9f",
    "mov [rsi - 8], rsi",
    "movaps xmm0, [rsp - 24]",
    "push 0",
    "mov eax, {stack}",
    "mov rax, [rax]",
    "mov [rax], rax",
    send!("exit", "3f", "4f"),
    "9: ud2",
    "3: .byte 0\n.ascii \"0\"",
    "4:",
);

/// Length of what every guest made by [`fault`] does first.
pub(crate) const PROLOGUE: u64 = 19;

/// Guests that set up the handler, mark R15, do one thing that faults, and say so if it does not.
macro_rules! fault {
    ($($name:ident: $($line:expr),+;)+) => {
        $(guest!(
            $name,
            "mov ecx, {fault_handler}",
            "mov eax, {report_fault}",
            "mov [rcx], rax",
            "mov r15d, 0x5eed",
            $($line),+,
            "mov eax, 0xbad",
            "mov ecx, {report}",
            "jmp rcx"
        );)+
    };
}

fault! {
    divide: "xor edx, edx", "xor ecx, ecx", "div rcx";
    undefined: "ud2";
    breakpoint: "int3";
    halt: "hlt";
    clear_interrupts: "cli";
    port_out: "out 0x80, al";
    port_in: "in al, 0x60";
    load_cr3: "mov rax, cr3", "mov cr3, rax";
    read_msr: "mov ecx, 0xc0000080", "rdmsr";
    interrupt_80: "int 0x80";
    interrupt_14: "int 14";
    non_canonical: "mov rax, 0x800000000000", "mov rax, [rax]";
    non_canonical_stack: "mov rsp, 0x900000000000", "push rax";
    single_step: "pushfq", "or qword ptr [rsp], 0x100", "popfq", "nop", "nop";
    x87: "mov word ptr [rsp - 8], 0x340", "fldcw [rsp - 8]", "fldz", "fldz", "fdivp", "fwait";

    read_null: "xor eax, eax", "mov rax, [rax]";
    write_null: "xor eax, eax", "mov [rax + 8], rax";
    jump_null: "xor eax, eax", "jmp rax";
    write_code: "lea rax, [rip]", "mov [rax], al";
    write_rodata: "mov eax, {rodata}", "mov [rax], al";
    write_boot_info: "mov eax, {boot}", "mov [rax], rax";
    write_gates: "mov eax, {gate_code}", "mov [rax], rax";
    execute_data: "mov eax, {data}", "jmp rax";
    execute_rodata: "mov eax, {rodata}", "jmp rax";
    execute_stack: "jmp rsp";
    execute_heap: "mov eax, {heap}", "mov rax, [rax]", "jmp rax";
    jump_unmapped: "mov eax, 0xc0000000", "jmp rax";
    read_gdt: "mov eax, {system}", "mov rax, [rax]";
    write_gdt: "mov eax, {system}", "mov [rax], rax";
    execute_ring_0_gate: "mov eax, {system_gates}", "jmp rax";
    read_tables: "mov eax, {system_tables}", "mov rax, [rax]";
    stack_overflow: "mov eax, {stack}", "mov rsp, [rax]", "push rax";
    behind_stack: "mov eax, {stack}", "mov rax, [rax + 8]", "mov al, [rax]";
    behind_memory: "mov eax, {heap}", "mov rax, [rax + 8]", "mov [rax], al";
    fault_stack_overflow: "mov eax, {fault_stack}", "mov [rax - 8], rax";
    absent_device: "mov eax, {virtio_net}", "mov eax, [rax]";
}

guest!(
    // Skips five undefined instructions in the handler; R12 counts them.
    resume,
    "mov ecx, {fault_handler}",
    "lea rax, [rip + 2f]",
    "mov [rcx], rax",
    "xor r12d, r12d",
    "mov rbp, rsp",
    "ud2",
    "ud2",
    "ud2",
    "xor eax, eax",
    // Three bytes, a page fault.
    "mov rax, [rax + 0]",
    "cmp rsp, rbp",
    "mov eax, 0xbad",
    "cmove eax, r12d",
    "mov ecx, {report}",
    "jmp rcx",
    "2: inc r12",
    "mov ebx, {trap}",
    "mov rdx, [rbx + {offset_rip}]",
    "add rdx, 2",
    "cmp qword ptr [rbx + {offset_vector}], 14",
    "jne 3f",
    "add rdx, 2",
    "3: mov rsp, [rbx + {offset_rsp}]",
    "mov qword ptr [rbx + {offset_in_fault}], 0",
    "jmp rdx",
);

guest!(fault_without_handler, "ud2");
guest!(page_fault_without_handler, "xor eax, eax", "mov rax, [rax]");
guest!(fault_in_handler, "mov ecx, {fault_handler}", "lea rax, [rip + 2f]", "mov [rcx], rax", "2: ud2",);
guest!(
    page_fault_in_handler,
    "mov ecx, {fault_handler}",
    "lea rax, [rip + 2f]",
    "mov [rcx], rax",
    "ud2",
    "2: xor eax, eax",
    "mov rax, [rax]",
);
guest!(
    page_fault_in_page_fault_handler,
    "mov ecx, {fault_handler}",
    "lea rax, [rip + 2f]",
    "mov [rcx], rax",
    "2: xor eax, eax",
    "mov rax, [rax]",
);
guest!(
    // The ring-0 gate would IRETQ to an address that no CPU accepts.
    non_canonical_handler,
    "mov ecx, {fault_handler}",
    "mov rax, 0x800000000000",
    "mov [rcx], rax",
    "xor eax, eax",
    "mov rax, [rax]",
);

guest!(
    // Sets flags and a %gs of its own, then calls; the handler reports in the data page, returns, and the guest reports:
    // CS, caller's flags as saved, handler's own flags, RSP kept, RDI kept, flags after.
    syscall,
    "mov ecx, {fault_handler}",
    "mov eax, {report_fault}",
    "mov [rcx], rax",
    "mov ecx, {syscall_handler}",
    "lea rax, [rip + 2f]",
    "mov [rcx], rax",
    "mov rbp, rsp",
    "mov edi, 0x1234",
    // A null selector: the base is gone on some CPUs, kept on others; the stub must not care.
    "xor eax, eax",
    "mov gs, eax",
    // DF, AC and carry.
    "pushfq",
    "or qword ptr [rsp], 0x40401",
    "popfq",
    "syscall",
    "pushfq",
    "cld",
    "pop r9",
    "and r9d, 0x44501",
    "and r13d, 0x44501",
    "mov r14d, {data}",
    "mov byte ptr [r14], 2",
    "inc r14",
    "mov rax, r12",
    "mov r10d, {hex}",
    "push r9",
    "call r10",
    "mov rax, r13",
    "mov r10d, {hex}",
    "call r10",
    "mov rax, rbx",
    "mov r10d, {hex}",
    "call r10",
    "pop rax",
    "mov r10d, {hex}",
    "call r10",
    "xor eax, eax",
    "cmp rsp, rbp",
    "sete al",
    "cmp edi, 0x1234",
    "sete ah",
    "mov r10d, {hex}",
    "call r10",
    "mov r10d, {finish}",
    "jmp r10",
    // The handler: RSP is the caller's, and so are the flags once it restored them.
    "2: pushfq",
    "pop rbx",
    "and ebx, 0x44500",
    "mov r12d, cs",
    "mov r13d, {syscall_rflags}",
    "mov r13, [r13]",
    "push r13",
    "popfq",
    "mov ecx, {syscall_rip}",
    "jmp qword ptr [rcx]",
);

guest!(
    // Nothing there to continue at: a jump to null.
    syscall_without_handler,
    "mov ecx, {fault_handler}",
    "mov eax, {report_fault}",
    "mov [rcx], rax",
    "mov r15d, 0x5eed",
    "syscall",
);
guest!(
    syscall_to_non_canonical_handler,
    "mov ecx, {syscall_handler}",
    "mov rax, 0x800000000000",
    "mov [rcx], rax",
    "syscall",
);

/// A guest that stores one word somewhere in the control page.
macro_rules! store {
    ($($name:ident: $address:literal, $value:literal;)+) => {
        $(guest!($name, concat!("mov ecx, ", $address), concat!("mov rax, ", $value), "mov [rcx], rax", "2: jmp 2b");)+
    };
}

store! {
    log_behind_memory: "{log}", "0x0010000000400000";
    log_across_the_end: "{log}", "0x00100000003ffff8";
    log_at_the_end: "{log}", "0x0008ffffffffffff";
    log_of_mmio: "{log}", "0x00080000d0000000";
    log_too_long: "{log}", "0xffff000000220000";
    exit_behind_memory: "{exit}", "0x0010000000400000";
    exit_empty: "{exit}", "0x0000000000220000";
    exit_unknown: "{exit}", "0x0001000000000000";
    exit_double_fault: "{exit}", "0";
    store_version: "{control}", "1";
    store_unknown: "{control} + 0x800", "1";
    store_misaligned: "{park} + 4", "1";
    store_across_the_page: "{control} + 0xffc", "1";
}
// An instruction that KVM's emulator does not know.
guest!(
    odd_instruction,
    "mov ecx, {fault_handler}",
    "mov eax, {report_fault}",
    "mov [rcx], rax",
    "mov ecx, {control}",
    "popcnt rax, [rcx]",
    "mov ecx, {report}",
    "jmp rcx",
);
guest!(store_short, "mov ecx, {park}", "mov [rcx], eax");
guest!(load_park, "mov ecx, {park}", "mov rax, [rcx]");
guest!(load_short, "mov ecx, {control}", "mov eax, [rcx]");

guest!(
    // Follows a script at 0x240000: steps of operation, address and value, see `network::Step`.
    script,
    "mov ecx, {fault_handler}",
    "mov eax, {report_fault}",
    "mov [rcx], rax",
    "mov esi, 0x240000",
    "2: mov rax, [rsi]",
    "mov rcx, [rsi + 8]",
    "mov rdx, [rsi + 16]",
    "add rsi, 24",
    "cmp eax, 1",
    "jb 3f",
    "je 4f",
    "cmp eax, 2",
    "je 5f",
    "mov eax, [rcx]",
    "cmp eax, edx",
    "je 2b",
    "mov ecx, {report}",
    "jmp rcx",
    "3: mov [rcx], edx",
    "jmp 2b",
    "4: mov [rcx], rdx",
    "jmp 2b",
    "5: cmp [rcx], dx",
    "je 2b",
    "mov eax, {park}",
    "mov rdi, -1",
    "mov [rax], rdi",
    "jmp 5b",
);
