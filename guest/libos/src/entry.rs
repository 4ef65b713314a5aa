//! From the first instruction to the application.

/// This image's ABI note.
#[cfg(weir_guest)]
#[unsafe(link_section = ".note.weir")]
#[used]
static NOTE: weir_abi::note::Note = weir_abi::note::Note::new(weir_abi::ABI_VERSION);

// The VMM enters here with rdi = boot-info and rsp = top of the stack, aligned as after a call.
#[cfg(weir_guest)]
core::arch::global_asm!(
    ".section .text.start, \"ax\"",
    ".globl _start",
    "_start:",
    "cld",
    "xor ebp, ebp",
    "jmp {start}",
    start = sym start,
);

#[cfg(weir_guest)]
extern "C" fn start() -> ! {
    unsafe extern "Rust" {
        safe fn weir_main();
    }
    crate::runtime::boot();
    weir_main();
    crate::runtime::run()
}

/// Precompiled parts of the core library refer to this; nothing here unwinds, so nothing calls it.
#[cfg(weir_guest)]
#[unsafe(no_mangle)]
extern "C" fn _Unwind_Resume() -> ! {
    panic!("unwinding in a guest")
}
