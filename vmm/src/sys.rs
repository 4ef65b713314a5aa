//! What the VMM needs `unsafe` for: raw file descriptors of KVM, memory shared with a guest, the kick signal.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::ops::{Deref, Range};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicPtr, Ordering};

use kvm_bindings::{kvm_userspace_memory_region, kvm_xsave};
use kvm_ioctls::{Kvm, VcpuFd, VmFd};
use libc::{c_int, c_void, siginfo_t};
use vm_memory::{ByteValued, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion, MmapRegion};
use weir_abi::BootInfo;

/// Takes /dev/kvm.
pub(crate) fn kvm(fd: OwnedFd) -> Kvm {
    // SAFETY: the descriptor is owned, and given up here. That it is /dev/kvm is not a matter of memory safety:
    // another file answers the ioctls with an error.
    unsafe { Kvm::from_raw_fd(fd.into_raw_fd()) }
}

/// Loads an XSAVE area of 4,096 bytes.
pub(crate) fn set_xsave(vcpu: &VcpuFd, area: &[u32]) -> Result<(), kvm_ioctls::Error> {
    let mut xsave = kvm_xsave::default();
    if area.len() != xsave.region.len() {
        return Err(kvm_ioctls::Error::new(libc::EINVAL));
    }
    xsave.region.copy_from_slice(area);
    // SAFETY: the kernel reads more than this structure only for features that a process has to ask for by
    // arch_prctl(ARCH_REQ_XCOMP_GUEST_PERM), which this program never does and its jail forbids.
    unsafe { vcpu.set_xsave(&xsave) }
}

/// Keeps guest memory out of core dumps.
pub(crate) fn exclude_from_core_dump(mapping: &MmapRegion) -> io::Result<()> {
    // SAFETY: the range is exactly one live mapping, which `mapping` owns; the advice changes no contents.
    let result = unsafe { libc::madvise(mapping.as_ptr().cast(), mapping.size(), libc::MADV_DONTDUMP) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Copies pages of a private mapping of a file, or fills those of a shared one, before a guest needs them.
/// `range` counts from the start of the mapping.
pub(crate) fn populate(mapping: &MmapRegion, range: Range<usize>) -> io::Result<()> {
    advise(mapping, range, libc::MADV_POPULATE_WRITE)
}

/// Gives pages back to the host. What is read there next is what the mapped file has, or zeroes.
pub(crate) fn discard(mapping: &MmapRegion, range: Range<usize>) -> io::Result<()> {
    advise(mapping, range, libc::MADV_DONTNEED)
}

/// The same for the pages of a file that is mapped shared: they become holes.
pub(crate) fn punch(mapping: &MmapRegion, range: Range<usize>) -> io::Result<()> {
    advise(mapping, range, libc::MADV_REMOVE)
}

fn advise(mapping: &MmapRegion, range: Range<usize>, advice: c_int) -> io::Result<()> {
    if range.start > range.end || range.end > mapping.size() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let start = mapping.as_ptr().wrapping_add(range.start);
    // SAFETY: the range lies within one live mapping, which `mapping` owns. Each advice changes at most what its bytes
    // are, as its guest may at any time: all accesses to guest memory are volatile, none holds a reference into it.
    let result = unsafe { libc::madvise(start.cast(), range.len(), advice) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Whether `file` is a memfd that nobody can change or shrink any more.
pub(crate) fn is_sealed(file: &File) -> bool {
    let needed = libc::F_SEAL_SHRINK | libc::F_SEAL_WRITE;
    // SAFETY: F_GET_SEALS takes no pointer.
    let seals = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GET_SEALS) };
    seals >= 0 && seals & needed == needed
}

/// A VM and the memory that its slots point to.
#[derive(Debug)]
pub(crate) struct MappedVm {
    fd: VmFd,
    /// Dropped after `fd`. A vCPU runs only under a `&mut Machine`, which holds both, so no guest runs after this.
    _memory: GuestMemoryMmap,
}

impl MappedVm {
    /// Gives `memory` to `vm`, one slot per region.
    pub(crate) fn new(vm: VmFd, memory: &GuestMemoryMmap) -> Result<Self, kvm_ioctls::Error> {
        for (slot, region) in (0..).zip(memory.iter()) {
            let region = kvm_userspace_memory_region {
                slot,
                flags: 0,
                guest_phys_addr: region.start_addr().0,
                memory_size: region.len(),
                userspace_addr: region.as_ptr() as u64,
            };
            // SAFETY: the range is one live mapping, kept alive by the clone in `_memory`; all that this process does
            // with guest memory goes through vm-memory's volatile accesses, so the guest may write at any time.
            unsafe { vm.set_user_memory_region(region) }?;
        }
        Ok(Self { fd: vm, _memory: memory.clone() })
    }

    /// The VM.
    pub(crate) fn fd(&self) -> &VmFd {
        &self.fd
    }
}

/// A file's contents, mapped read-only.
#[derive(Debug)]
pub(crate) struct SealedFile {
    start: NonNull<u8>,
    length: usize,
}

impl SealedFile {
    /// Maps `file`, a memfd that is sealed against writing and shrinking.
    pub(crate) fn map(file: &File) -> io::Result<Self> {
        if !is_sealed(file) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a memfd sealed against change"));
        }
        let length = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
        if length == 0 {
            return Ok(Self { start: NonNull::dangling(), length });
        }
        // SAFETY: a new private mapping at an address of the kernel's choice; arguments are valid for any file.
        let start = unsafe {
            libc::mmap(ptr::null_mut(), length, libc::PROT_READ, libc::MAP_PRIVATE, file.as_raw_fd(), 0)
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or_else(|| io::Error::other("mapped at address zero"))?;
        Ok(Self { start, length })
    }
}

impl Deref for SealedFile {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `start` and `length` are those of a live read-only mapping (or a dangling pointer and zero); the
        // seals, which cannot be taken off, keep everyone from changing or truncating the file below it.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.length) }
    }
}

impl Drop for SealedFile {
    fn drop(&mut self) {
        if self.length > 0 {
            // SAFETY: the mapping that `map` made; slices of it borrow `self` and are gone.
            unsafe { libc::munmap(self.start.as_ptr().cast(), self.length) };
        }
    }
}

/// [`BootInfo`] as bytes for guest memory.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct BootInfoBytes(pub(crate) BootInfo);

// SAFETY: `BootInfo` is `repr(C)` of plain integers without padding (its own test adds up the field sizes), so every
// byte is initialised and every pattern of bytes is a value.
unsafe impl ByteValued for BootInfoBytes {}

/// The signal that ends KVM_RUN. Not a real-time signal: those are lost, and SIGIO sent instead, once the user's queue
/// of pending signals is full.
pub(crate) const KICK: c_int = libc::SIGUSR1;

thread_local! {
    /// `immediate_exit` of this thread's vCPU. Constant-initialised and without a destructor, so that the signal
    /// handler's access is a plain load.
    static IMMEDIATE_EXIT: AtomicPtr<u8> = const { AtomicPtr::new(ptr::null_mut()) };
}

/// Makes the next (or current) KVM_RUN of this thread return. Without the flag, a signal that arrives just before
/// KVM_RUN would be lost.
pub(crate) extern "C" fn kick(_: c_int, _: *mut siginfo_t, _: *mut c_void) {
    let flag = IMMEDIATE_EXIT.with(|flag| flag.load(Ordering::Relaxed));
    if !flag.is_null() {
        // SAFETY: a non-null pointer is into the kvm_run page of a live vCPU: `KickTarget` takes it back on drop, and
        // is dropped before the vCPU. The handler runs on the thread that uses the vCPU.
        unsafe { flag.write_volatile(1) };
    }
}

/// While it lives, [`kick`] on this thread stops the vCPU it was made for. Not `Send`.
#[derive(Debug)]
pub(crate) struct KickTarget(std::marker::PhantomData<*mut u8>);

impl KickTarget {
    /// Aims kicks of this thread at `vcpu`, which the caller must keep longer than the result.
    pub(crate) fn new(vcpu: &mut VcpuFd) -> Self {
        let flag = &raw mut vcpu.get_kvm_run().immediate_exit;
        IMMEDIATE_EXIT.with(|target| target.store(flag, Ordering::Relaxed));
        Self(std::marker::PhantomData)
    }
}

impl Drop for KickTarget {
    fn drop(&mut self) {
        IMMEDIATE_EXIT.with(|target| target.store(ptr::null_mut(), Ordering::Relaxed));
    }
}

/// `struct f_owner_ex` of linux/fcntl.h, which libc has for some targets only.
#[repr(C)]
struct OwnerEx {
    kind: c_int,
    pid: libc::pid_t,
}

const F_SETSIG: c_int = 10;
const F_SETOWN_EX: c_int = 15;
const F_OWNER_TID: c_int = 0;

/// From now on, whatever arrives on `socket` (end of file included) sends [`KICK`] to this thread. Makes `socket`
/// non-blocking.
pub(crate) fn kick_on_input(socket: BorrowedFd<'_>) -> io::Result<()> {
    let check = |result: c_int| if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) };
    let fd = socket.as_raw_fd();
    // SAFETY: no arguments.
    let owner = OwnerEx { kind: F_OWNER_TID, pid: unsafe { libc::gettid() } };
    // SAFETY: F_SETOWN_EX reads one `f_owner_ex`, which lives through the call.
    check(unsafe { libc::fcntl(fd, F_SETOWN_EX, &raw const owner) })?;
    // SAFETY: F_SETSIG takes a number.
    check(unsafe { libc::fcntl(fd, F_SETSIG, KICK) })?;
    // SAFETY: F_GETFL takes nothing.
    let flags = check(unsafe { libc::fcntl(fd, libc::F_GETFL) })?;
    // SAFETY: F_SETFL takes a number.
    check(unsafe { libc::fcntl(fd, libc::F_SETFL, flags | libc::O_ASYNC | libc::O_NONBLOCK) })?;
    Ok(())
}

/// Suberror and data of the KVM_EXIT_INTERNAL_ERROR that `vcpu` just returned with.
pub(crate) fn internal_error(vcpu: &mut VcpuFd) -> (u32, Vec<u64>) {
    let run = vcpu.get_kvm_run();
    // SAFETY: every variant of the union is plain numbers, so any of them may be read whatever was written.
    let error = unsafe { run.__bindgen_anon_1.internal };
    let count = (error.ndata as usize).min(error.data.len());
    (error.suberror, error.data[..count].to_vec())
}
