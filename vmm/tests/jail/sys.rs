//! System calls as a broken-out guest would make them.

use std::io;

/// Any system call. Callers pass numbers and null pointers only, so that the kernel never writes to memory.
pub(crate) fn call(number: libc::c_long, arguments: [u64; 6]) -> io::Result<libc::c_long> {
    let [a, b, c, d, e, f] = arguments;
    // SAFETY: with null pointers the worst that a call can do is to succeed, which is what the test looks for.
    let result = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// getpid by the 32-bit entry, whose numbers mean other calls than the 64-bit ones.
pub(crate) fn getpid_32_bit() -> i32 {
    let result: i32;
    // SAFETY: getpid has no arguments; int 0x80 changes eax and, on some kernels, r8 to r11.
    unsafe {
        std::arch::asm!("int 0x80", inlateout("eax") 20 => result,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _);
    }
    result
}

/// fork; the child exits at once.
pub(crate) fn fork_a_child_that_exits() -> io::Result<()> {
    // SAFETY: this process has one thread, and the child does nothing but exit.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        // SAFETY: ends the child without running anything.
        0 => unsafe { libc::_exit(0) },
        _ => Ok(()),
    }
}
