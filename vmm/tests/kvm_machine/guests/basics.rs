//! Guests that do as they should: messages, waits, clocks, and the memory that they have.

use super::*;

guest!(
    hello,
    ready!(),
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

guest!(park_forever, ready!(), "2: mov ecx, {park}", "mov rax, -1", "mov [rcx], rax", "jmp 2b");

guest!(
    // Wakes up every 10 ms.
    poll,
    ready!(),
    "mov ecx, {park}",
    "mov rax, 10000000",
    "2: mov [rcx], rax",
    "jmp 2b"
);

guest!(
    // Reports how long a PARK of 20 ms took, in microseconds.
    park_20_ms,
    rdtsc!(),
    "mov r12, rax",
    park!("20000000"),
    rdtsc!(),
    "sub rax, r12",
    report_ticks!(),
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
    rdtsc!(),
    "mov ecx, {tsc_base}",
    "sub rax, [rcx]",
    report_ticks!(),
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
