//! Frames between a TAP and guest memory, without a copy in between.
#![allow(unsafe_code)]

use std::ffi::c_ulong;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use vm_memory::VolatileSlice;
use vm_memory::volatile_memory::{PtrGuard, PtrGuardMut};

use super::net::{FrameIo, Offloads};

/// Bits of `TUNSETOFFLOAD` (linux/if_tun.h).
const TUN_F_CSUM: c_ulong = 1;
const TUN_F_TSO4: c_ulong = 2;
/// All of them that [`Tap`] ever sets.
pub(crate) const OFFLOADS: c_ulong = TUN_F_CSUM | TUN_F_TSO4;

/// A TAP that was opened non-blocking, with `IFF_VNET_HDR` and a header of 12 bytes. Any other descriptor that keeps
/// message boundaries works too, without offloads.
#[derive(Debug)]
pub struct Tap(OwnedFd);

impl Tap {
    /// Takes the TAP over.
    pub fn new(fd: OwnedFd) -> Self {
        Self(fd)
    }
}

impl FrameIo for Tap {
    fn set_offloads(&mut self, offloads: Offloads) -> io::Result<()> {
        let bit = |on: bool, bit: c_ulong| if on { bit } else { 0 };
        let bits = bit(offloads.checksum, TUN_F_CSUM) | bit(offloads.tcp4, TUN_F_TSO4);
        // SAFETY: TUNSETOFFLOAD takes a number, no pointer, and no other driver of what may be in the place of a TAP
        // knows the request. The descriptor is open: `self` owns it.
        let result = unsafe { libc::ioctl(self.0.as_raw_fd(), libc::TUNSETOFFLOAD, bits) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    fn receive(&mut self, head: &mut [u8], body: &[VolatileSlice<'_>]) -> io::Result<usize> {
        // A frame that is cut off looks like one that just fits, but for this byte.
        let mut beyond = [0u8; 1];
        let guards: Vec<PtrGuardMut> = body.iter().map(VolatileSlice::ptr_guard_mut).collect();
        let mut vectors = Vec::with_capacity(guards.len() + 2);
        vectors.push(vector(head.as_mut_ptr(), head.len()));
        vectors.extend(guards.iter().map(|guard| vector(guard.as_ptr(), guard.len())));
        vectors.push(vector(beyond.as_mut_ptr(), beyond.len()));
        // SAFETY: `vectors` names `head` and `beyond`, which are exclusively borrowed, and guest memory that `guards`
        // keep mapped: all valid for writes until after the call. Guest memory is only ever accessed through volatile
        // slices, so that the kernel writing to it breaks no Rust reference. The descriptor is open: `self` owns it.
        let result = unsafe { libc::readv(self.0.as_raw_fd(), vectors.as_ptr(), count(&vectors)?) };
        length(result)
    }

    fn send(&mut self, head: &[u8], body: &[VolatileSlice<'_>]) -> io::Result<usize> {
        let guards: Vec<PtrGuard> = body.iter().map(VolatileSlice::ptr_guard).collect();
        let mut vectors = Vec::with_capacity(guards.len() + 1);
        vectors.push(vector(head.as_ptr().cast_mut(), head.len()));
        vectors.extend(guards.iter().map(|guard| vector(guard.as_ptr().cast_mut(), guard.len())));
        // SAFETY: `vectors` names `head`, which is borrowed, and guest memory that `guards` keep mapped: all valid for
        // reads until after the call, and `writev` only reads. The descriptor is open: `self` owns it.
        let result = unsafe { libc::writev(self.0.as_raw_fd(), vectors.as_ptr(), count(&vectors)?) };
        length(result)
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn vector(base: *mut u8, length: usize) -> libc::iovec {
    libc::iovec { iov_base: base.cast(), iov_len: length }
}

fn count(vectors: &[libc::iovec]) -> io::Result<libc::c_int> {
    libc::c_int::try_from(vectors.len()).map_err(|_| io::ErrorKind::InvalidInput.into())
}

fn length(result: libc::ssize_t) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}
