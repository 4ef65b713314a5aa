//! A guest that does what a test writes down.

use super::*;

guest!(
    // Follows a script at 0x240000: steps of operation, address and value, see `network::Step`.
    script,
    report_faults!(),
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
