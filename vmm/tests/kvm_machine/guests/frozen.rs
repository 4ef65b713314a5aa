//! Guests for snapshots, resets and discards.

use super::*;

/// Adds one to a count in memory and logs it, a digit.
macro_rules! count {
    () => {
        concat!(
            "mov ecx, {data}\n inc byte ptr [rcx + 0x1000]\n mov al, [rcx + 0x1000]\n add al, 48\n mov [rcx], al\n",
            "mov rax, 1\n shl rax, 48\n or rax, rcx\n mov ecx, {log}\n mov [rcx], rax\n"
        )
    };
}

guest!(
    // READY, a park, then as often as it continues: a count in memory, logged as a digit; a short park; once more; a park.
    tally,
    ready!(),
    "1:",
    park!("-1"),
    "call 2f",
    park!("1000"),
    "call 2f",
    "jmp 1b",
    "2:",
    count!(),
    "ret",
);

guest!(
    // READY, a park; then the same count, once, and no end.
    tally_and_spin,
    ready!(),
    park!("-1"),
    count!(),
    "1: jmp 1b",
);

guest!(
    // READY with values in many places, a park; then reports them: RBX, R15, RFLAGS, both halves of XMM9, MXCSR, a word of
    // the stack, and from boot-info generation and vm id.
    registers,
    "movabs rbx, 0x1122334455667788",
    "movabs r15, 0x99aabbccddeeff00",
    "movq xmm9, rbx",
    "movq xmm1, r15",
    "punpcklqdq xmm9, xmm1",
    "push 0x1fa0",
    "ldmxcsr [rsp]",
    ready!(),
    "mov ecx, {park}",
    "mov rax, -1",
    "stc",
    "std",
    "mov [rcx], rax",
    "pushfq",
    "cld",
    "mov r14d, {data}",
    "mov byte ptr [r14], 2",
    "inc r14",
    "mov r12d, {hex}",
    "mov rax, rbx",
    "call r12",
    "mov rax, r15",
    "call r12",
    "pop rax",
    "call r12",
    "movq rax, xmm9",
    "call r12",
    "psrldq xmm9, 8",
    "movq rax, xmm9",
    "call r12",
    "push 0",
    "stmxcsr [rsp]",
    "pop rax",
    "call r12",
    "pop rax",
    "call r12",
    "mov ecx, {generation}",
    "mov rax, [rcx]",
    "call r12",
    "mov ecx, {vm_id}",
    "mov rax, [rcx]",
    "call r12",
    "mov ecx, {finish}",
    "jmp rcx",
);

guest!(
    // Writes to the heap's second page, discards it, and reports what it has then.
    discard,
    "mov ecx, {heap}",
    "mov rbx, [rcx]",
    "add rbx, 4096",
    "mov qword ptr [rbx], 77",
    "mov rax, 1",
    "shl rax, 48",
    "or rax, rbx",
    discard!(),
    "mov rax, [rbx]",
    "mov qword ptr [rbx], 78",
    "add rax, [rbx]",
    "mov ecx, {report}",
    "jmp rcx",
);

guest!(
    // Discards no page.
    discard_nothing,
    "mov ecx, {heap}",
    "mov rax, [rcx]",
    discard!(),
    "ud2",
);

guest!(
    // Discards half a page.
    discard_unaligned,
    "mov ecx, {heap}",
    "mov rbx, [rcx]",
    "add rbx, 8",
    "mov rax, 1",
    "shl rax, 48",
    "or rax, rbx",
    discard!(),
    "ud2",
);

guest!(
    // Discards its own page tables.
    discard_tables,
    "mov rax, 1",
    "shl rax, 48",
    "or rax, 0x19000",
    discard!(),
    "ud2",
);

guest!(
    // Discards memory that it does not have.
    discard_beyond,
    "mov ecx, {heap}",
    "mov rbx, [rcx]",
    "mov rax, 0xffff",
    "shl rax, 48",
    "or rax, rbx",
    discard!(),
    "ud2",
);
