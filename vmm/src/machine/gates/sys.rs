//! The gates' machine code, and the slices of this program that hold it. See the parent module for what it does.
#![allow(unsafe_code)]

use std::arch::global_asm;

use weir_abi::{control, layout, trap::offset};

use crate::machine::system;

const TRAP: u64 = layout::TRAP_AREA;

global_asm!(
    r#"
    .pushsection .rodata.weir_gates, "a", @progbits
    .hidden weir_gates_user, weir_gates_user_end, weir_gates_syscall, weir_gates_vectors
    .hidden weir_gates_kernel, weir_gates_kernel_end, weir_gates_page_fault, weir_gates_double_fault
    .globl weir_gates_user, weir_gates_user_end, weir_gates_syscall, weir_gates_vectors
    .globl weir_gates_kernel, weir_gates_kernel_end, weir_gates_page_fault, weir_gates_double_fault

    .balign 16
weir_gates_user:
weir_gates_syscall:
    mov qword ptr [{syscall_rip}], rcx
    mov qword ptr [{syscall_rflags}], r11
    mov ecx, cs
    test cl, 3
    mov rcx, qword ptr [{syscall_handler}]
    jz 2f
    cld
    jmp rcx
2:  and r11, {keep_flags}
    sysretq

    .balign 16
weir_gates_vectors:
    .irp vector, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
    .balign 16
    .if (({error_vectors} >> \vector) & 1) == 0
    push 0
    .endif
    push \vector
    jmp 3f
    .endr

    // Stack: vector, error, rip, cs, rflags, rsp, ss. Ring 3, on the fault stack.
    .balign 16
3:  push rax
    cmp qword ptr [{in_fault}], 0
    jne 4f
    cmp qword ptr [{fault_handler}], 0
    je 4f
    mov qword ptr [{in_fault}], 1
    mov rax, qword ptr [rsp + 8]
    mov qword ptr [{vector}], rax
    mov rax, qword ptr [rsp + 16]
    mov qword ptr [{error}], rax
    mov qword ptr [{cr2}], 0
    mov rax, qword ptr [rsp + 24]
    mov qword ptr [{rip}], rax
    mov rax, qword ptr [rsp + 32]
    mov qword ptr [{cs}], rax
    mov rax, qword ptr [rsp + 40]
    mov qword ptr [{rflags}], rax
    mov rax, qword ptr [rsp + 48]
    mov qword ptr [{rsp}], rax
    mov rax, qword ptr [rsp + 56]
    mov qword ptr [{ss}], rax
    pop rax
    mov rsp, {handler_rsp}
    cld
    jmp qword ptr [{fault_handler}]
4:  mov eax, {exit}
    xor ecx, ecx
    mov qword ptr [rax], rcx
5:  jmp 5b
weir_gates_user_end:

    .balign 16
weir_gates_kernel:
weir_gates_page_fault:
    // Stack: error, rip, cs, rflags, rsp, ss. Ring 0, on its own stack.
    push rax
    test byte ptr [rsp + 24], 3
    jz 6f
    cmp qword ptr [{in_fault}], 0
    jne 6f
    mov rax, qword ptr [{fault_handler}]
    test rax, rax
    jz 6f
    mov qword ptr [{in_fault}], 1
    mov qword ptr [{vector}], 14
    mov rax, cr2
    mov qword ptr [{cr2}], rax
    mov rax, qword ptr [rsp + 8]
    mov qword ptr [{error}], rax
    mov rax, qword ptr [rsp + 16]
    mov qword ptr [{rip}], rax
    mov rax, qword ptr [rsp + 24]
    mov qword ptr [{cs}], rax
    mov rax, qword ptr [rsp + 40]
    mov qword ptr [{rsp}], rax
    mov rax, qword ptr [rsp + 48]
    mov qword ptr [{ss}], rax
    mov rax, qword ptr [rsp + 32]
    mov qword ptr [{rflags}], rax
    and rax, {keep_flags}
    mov qword ptr [rsp + 32], rax
    mov rax, qword ptr [{fault_handler}]
    mov qword ptr [rsp + 16], rax
    mov qword ptr [rsp + 24], {user_code}
    mov qword ptr [rsp + 40], {handler_rsp}
    mov qword ptr [rsp + 48], {user_data}
    pop rax
    add rsp, 8
    iretq

    .balign 16
weir_gates_double_fault:
6:  mov eax, {exit}
    xor ecx, ecx
    mov qword ptr [rax], rcx
7:  hlt
    jmp 7b
weir_gates_kernel_end:
    .popsection
    "#,
    syscall_rip = const TRAP + offset::SYSCALL_RIP as u64,
    syscall_rflags = const TRAP + offset::SYSCALL_RFLAGS as u64,
    syscall_handler = const TRAP + offset::SYSCALL_HANDLER as u64,
    fault_handler = const TRAP + offset::FAULT_HANDLER as u64,
    in_fault = const TRAP + offset::IN_FAULT as u64,
    vector = const TRAP + offset::VECTOR as u64,
    error = const TRAP + offset::ERROR as u64,
    cr2 = const TRAP + offset::CR2 as u64,
    rip = const TRAP + offset::RIP as u64,
    cs = const TRAP + offset::CS as u64,
    rflags = const TRAP + offset::RFLAGS as u64,
    rsp = const TRAP + offset::RSP as u64,
    ss = const TRAP + offset::SS as u64,
    // #DF #TS #NP #SS #GP #PF #AC #CP #VC #SX
    error_vectors = const 0x6022_7d00u32,
    // Sign-extended to 64 bits: everything but TF, DF, NT and AC.
    keep_flags = const !(system::SFMASK as i32),
    handler_rsp = const layout::FAULT_STACK + layout::FAULT_STACK_SIZE - 8,
    exit = const layout::CONTROL + control::EXIT,
    user_code = const system::USER_CODE,
    user_data = const system::USER_DATA,
);

unsafe extern "C" {
    static weir_gates_user: u8;
    static weir_gates_user_end: u8;
    static weir_gates_syscall: u8;
    static weir_gates_vectors: u8;
    static weir_gates_kernel: u8;
    static weir_gates_kernel_end: u8;
    static weir_gates_page_fault: u8;
    static weir_gates_double_fault: u8;
}

/// Entry points, as distances from the start of their part.
pub(super) struct Entries {
    pub(super) syscall: u64,
    pub(super) vectors: u64,
    pub(super) page_fault: u64,
    pub(super) double_fault: u64,
}

/// Ring-3 part, ring-0 part, entry points.
pub(super) fn code() -> (&'static [u8], &'static [u8], Entries) {
    let user = between(&raw const weir_gates_user, &raw const weir_gates_user_end);
    let kernel = between(&raw const weir_gates_kernel, &raw const weir_gates_kernel_end);
    let entries = Entries {
        syscall: distance(user, &raw const weir_gates_syscall),
        vectors: distance(user, &raw const weir_gates_vectors),
        page_fault: distance(kernel, &raw const weir_gates_page_fault),
        double_fault: distance(kernel, &raw const weir_gates_double_fault),
    };
    (user, kernel, entries)
}

/// The bytes between two of the labels above.
fn between(start: *const u8, end: *const u8) -> &'static [u8] {
    // SAFETY: both are labels of the one read-only section above, `start` first, so everything between them is
    // initialised, never written and lives as long as the program; the assembler text above keeps the order.
    unsafe { std::slice::from_raw_parts(start, end as usize - start as usize) }
}

fn distance(part: &[u8], label: *const u8) -> u64 {
    (label as usize - part.as_ptr() as usize) as u64
}
