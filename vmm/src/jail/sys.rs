//! The jail's system calls that no safe wrapper offers.

use std::io;
use std::os::fd::RawFd;

/// Closes every file descriptor of this process but 0, 1, 2 and `keep`.
///
/// Whoever still owns one of the others (the launcher's structures, copied by fork) must not use or drop it
/// afterwards: the caller is a fresh child or a fresh program that diverges and never unwinds into such an owner.
pub(crate) fn close_all_but(keep: &[RawFd]) -> io::Result<()> {
    let mut keep: Vec<u32> = keep.iter().filter_map(|&fd| u32::try_from(fd).ok()).collect();
    keep.sort_unstable();
    let mut first = 3;
    for fd in keep {
        if fd > first {
            close_range(first, fd - 1)?;
        }
        first = first.max(fd + 1);
    }
    close_range(first, u32::MAX)
}

fn close_range(first: u32, last: u32) -> io::Result<()> {
    // SAFETY: closes numbers, touches no memory. That no owner of one of them acts on it later is the contract of
    // `close_all_but`, kept by its two callers, which both run before or instead of such owners.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
