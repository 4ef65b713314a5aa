//! Guests that use their control page as they should not.

use super::*;

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
    report_faults!(),
    "mov ecx, {control}",
    "popcnt rax, [rcx]",
    "mov ecx, {report}",
    "jmp rcx",
);
guest!(store_short, "mov ecx, {park}", "mov [rcx], eax");
guest!(load_park, "mov ecx, {park}", "mov rax, [rcx]");
guest!(load_short, "mov ecx, {control}", "mov eax, [rcx]");
