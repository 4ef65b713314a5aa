//! Guests that use SYSCALL.

use super::*;

guest!(
    // Sets flags and a %gs of its own, then calls; the handler reports in the data page, returns, and the guest reports:
    // CS, caller's flags as saved, handler's own flags, RSP kept, RDI kept, flags after.
    syscall,
    report_faults!(),
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
    report_faults!(),
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
