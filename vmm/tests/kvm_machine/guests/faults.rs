//! Guests that fault, and how they take it.

use super::*;

/// Length of what every guest made by [`fault`] does first.
pub(crate) const PROLOGUE: u64 = 19;

/// Guests that set up the handler, mark R15, do one thing that faults, and say so if it does not.
macro_rules! fault {
    ($($name:ident: $($line:expr),+;)+) => {
        $(guest!(
            $name,
            report_faults!(),
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
