//! The TUN driver's ioctls (linux/if_tun.h), the only system calls here that no crate wraps as we need them.
//! `docs/adr/0003-tap-by-ioctl.md` says why no TAP library is used.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_ulong};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Size of `struct virtio_net_hdr_v1`, bytes: what precedes every frame on a TAP's file descriptor.
pub(crate) const VNET_HEADER: c_int = 12;

/// Turns `tun`, a fresh descriptor of /dev/net/tun, into a new TAP device called `name`: no packet information,
/// a virtio-net header before each frame. `EBUSY` if the name is taken, `EINVAL` if it is no name.
pub(crate) fn create_tap(tun: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR | libc::IFF_TUN_EXCL;
    // SAFETY: `ifreq` is a plain C structure of integers and a union of such, for which all zeros is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // One byte stays zero: the kernel wants the name terminated.
    let room = request.ifr_name.len() - 1;
    if name.is_empty() || name.len() > room || !name.is_ascii() {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = c_short_of(flags);
    // SAFETY: TUNSETIFF reads and writes one `ifreq` through its argument; `request` is one, is exclusively ours
    // and outlives the call. `tun` is open for the call, as the borrow shows.
    check(unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETIFF, &raw mut request) })
}

/// Sets the size of the virtio-net header before each frame to [`VNET_HEADER`].
pub(crate) fn set_vnet_header(tap: BorrowedFd<'_>) -> io::Result<()> {
    let size: c_int = VNET_HEADER;
    // SAFETY: TUNSETVNETHDRSZ reads one `int` through its argument; `size` is one and outlives the call. `tap` is
    // open for the call, as the borrow shows.
    check(unsafe { libc::ioctl(tap.as_raw_fd(), libc::TUNSETVNETHDRSZ, &raw const size) })
}

/// Sets which offloads the reader of `tap` understands: none, so every frame fits the MTU and has its checksum.
pub(crate) fn set_no_offloads(tap: BorrowedFd<'_>) -> io::Result<()> {
    let none: c_ulong = 0;
    // SAFETY: TUNSETOFFLOAD takes a number, no pointer. `tap` is open for the call, as the borrow shows.
    check(unsafe { libc::ioctl(tap.as_raw_fd(), libc::TUNSETOFFLOAD, none) })
}

/// Whether the device outlives its descriptors: if so, it goes with its network namespace.
pub(crate) fn set_persistent(tap: BorrowedFd<'_>, persistent: bool) -> io::Result<()> {
    let on = c_ulong::from(persistent);
    // SAFETY: TUNSETPERSIST takes a number, no pointer. `tap` is open for the call, as the borrow shows.
    check(unsafe { libc::ioctl(tap.as_raw_fd(), libc::TUNSETPERSIST, on) })
}

/// The `IFF_…` flags of a TUN request, all of which are in the low 16 bits.
fn c_short_of(flags: c_int) -> libc::c_short {
    let [low, second, ..] = flags.to_le_bytes();
    libc::c_short::from_le_bytes([low, second])
}

fn check(result: c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
