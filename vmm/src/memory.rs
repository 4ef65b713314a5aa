//! Guest memory: one mapping from guest-physical address zero, of memory of its own or of a snapshot's file.
//!
//! Nothing is reserved (a guest pays for the pages it touches) and nothing of a tenant's memory goes into core dumps.

use std::fs::File;
use std::ops::{Deref, Range};

use vm_memory::mmap::{MmapRegionBuilder, MmapRegionError};
use vm_memory::{
    FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion, GuestRegionMmap,
};
use weir_abi::layout;

use crate::order::{PageRun, Sharing};
use crate::sys;

/// Bytes of a small page.
pub const PAGE: u64 = 4096;
/// Bytes of a large page.
pub const LARGE_PAGE: u64 = 2 << 20;

/// `address` rounded down to a page boundary.
pub const fn page_down(address: u64) -> u64 {
    address & !(PAGE - 1)
}

/// `address` rounded up to a page boundary; the caller knows that this does not overflow.
pub const fn page_up(address: u64) -> u64 {
    page_down(address + (PAGE - 1))
}

/// Why there is no guest memory.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// Not a multiple of the page size.
    #[error("guest memory of {0} bytes is not a multiple of {PAGE}")]
    Unaligned(u64),
    /// It would reach into the MMIO window.
    #[error("guest memory of {0} bytes is more than {max}", max = layout::CONTROL)]
    TooLarge(u64),
    /// The host refused.
    #[error("map {size} bytes of guest memory")]
    Map {
        /// How much was asked for.
        size: u64,
        /// Why.
        #[source]
        source: MmapRegionError,
    },
    /// The host refused to keep it out of core dumps.
    #[error("exclude guest memory from core dumps")]
    Advise(#[source] std::io::Error),
    /// Its file cannot be looked at.
    #[error("get the size of the memory's file")]
    File(#[source] std::io::Error),
    /// Its file is another's.
    #[error("memory's file has {length} bytes, guest memory {bytes}")]
    FileSize {
        /// Of the file.
        length: u64,
        /// Asked for.
        bytes: u64,
    },
    /// Its file could change below it.
    #[error("memory's file is not sealed against change")]
    NotSealed,
    /// The host refused to take pages back.
    #[error("discard guest memory from {start:#x} to {end:#x}")]
    Discard {
        /// First byte.
        start: u64,
        /// The byte behind the last one.
        end: u64,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The host refused to take it back to what the file has.
    #[error("restore guest memory")]
    Restore(#[source] std::io::Error),
    /// Its end is no address.
    #[error("guest memory of {0} bytes has no valid range")]
    Range(u64),
}

/// Checks a size of guest memory.
///
/// # Errors
/// [`MemoryError::Unaligned`], [`MemoryError::TooLarge`].
pub fn check_size(bytes: u64) -> Result<(), MemoryError> {
    if !bytes.is_multiple_of(PAGE) {
        return Err(MemoryError::Unaligned(bytes));
    }
    if bytes > layout::CONTROL {
        return Err(MemoryError::TooLarge(bytes));
    }
    Ok(())
}

/// What guest memory is kept in.
#[derive(Debug)]
pub enum Backing {
    /// Memory of this process, zeroed.
    Anonymous,
    /// A memfd of just the size. To be mapped [`Sharing::Private`] it has to be sealed against change.
    File(File, Sharing),
}

/// Maps `bytes` of guest memory at guest-physical address zero.
///
/// # Errors
/// See [`MemoryError`].
pub fn map(bytes: u64, backing: Backing) -> Result<GuestMemoryMmap, MemoryError> {
    check_size(bytes)?;
    let size = usize::try_from(bytes).map_err(|_| MemoryError::TooLarge(bytes))?;
    let builder = MmapRegionBuilder::new(size).with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE);
    let builder = match backing {
        Backing::Anonymous => {
            builder.with_mmap_flags(libc::MAP_ANONYMOUS | libc::MAP_PRIVATE | libc::MAP_NORESERVE)
        }
        Backing::File(file, sharing) => {
            check_file(&file, bytes, sharing)?;
            let flags = match sharing {
                Sharing::Private => libc::MAP_PRIVATE,
                Sharing::Shared => libc::MAP_SHARED,
            };
            let offset = FileOffset::new(file, 0);
            builder.with_file_offset(offset).with_mmap_flags(flags | libc::MAP_NORESERVE)
        }
    };
    let mapping = builder.build().map_err(|source| MemoryError::Map { size: bytes, source })?;
    sys::exclude_from_core_dump(&mapping).map_err(MemoryError::Advise)?;
    let region = GuestRegionMmap::new(mapping, GuestAddress(0)).ok_or(MemoryError::Range(bytes))?;
    GuestMemoryMmap::from_regions(vec![region]).map_err(|_| MemoryError::Range(bytes))
}

/// A file that is too short, or could become so, would end its VM's process at some later access.
fn check_file(file: &File, bytes: u64, sharing: Sharing) -> Result<(), MemoryError> {
    let length = file.metadata().map_err(MemoryError::File)?.len();
    if length != bytes {
        return Err(MemoryError::FileSize { length, bytes });
    }
    if sharing == Sharing::Private && !sys::is_sealed(file) {
        return Err(MemoryError::NotSealed);
    }
    Ok(())
}

/// Copies, or fills, the pages of `runs` before a guest needs them. Runs beyond memory are left out, and so is
/// everything on a kernel that cannot do it: this only saves time.
pub fn populate(memory: &GuestMemoryMmap, runs: &[PageRun]) {
    for region in memory.iter() {
        let ranges = runs.iter().filter_map(|run| offsets(run.range(region.len())?));
        for range in ranges {
            if sys::populate(region.deref(), range).is_err() {
                return;
            }
        }
    }
}

/// Whose pages a discard is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// This process's own: anonymous ones, or copies of a file's.
    Process,
    /// Those of the file that is mapped shared.
    File,
}

/// Gives the host's memory behind `range` of guest memory back. It then has zeroes, or what a mapped file has there.
///
/// # Errors
/// [`MemoryError::Discard`]
pub fn discard(memory: &GuestMemoryMmap, range: Range<u64>, kept: Kept) -> Result<(), MemoryError> {
    let failed = |source| MemoryError::Discard { start: range.start, end: range.end, source };
    let outside = || failed(std::io::ErrorKind::InvalidInput.into());
    let region = memory.find_region(GuestAddress(range.start)).ok_or_else(outside)?;
    let offsets = offsets(range.clone()).ok_or_else(outside)?;
    let done = match kept {
        Kept::Process => sys::discard(region.deref(), offsets),
        Kept::File => sys::punch(region.deref(), offsets),
    };
    done.map_err(failed)
}

/// Takes all writes of a private mapping back: its pages are the file's again.
///
/// # Errors
/// [`MemoryError::Restore`]
pub fn restore(memory: &GuestMemoryMmap) -> Result<(), MemoryError> {
    for region in memory.iter() {
        let whole = 0..region.deref().size();
        sys::discard(region.deref(), whole).map_err(MemoryError::Restore)?;
    }
    Ok(())
}

fn offsets(range: Range<u64>) -> Option<Range<usize>> {
    Some(usize::try_from(range.start).ok()?..usize::try_from(range.end).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use vm_memory::Bytes;

    #[test]
    fn memory_is_zero_and_starts_at_zero() {
        let memory = map(64 * PAGE, Backing::Anonymous).unwrap();
        assert_eq!(memory.num_regions(), 1);
        assert_eq!(memory.iter().next().unwrap().len(), 64 * PAGE);
        let mut page = [1; 4096];
        memory.read_slice(&mut page, GuestAddress(63 * PAGE)).unwrap();
        assert_eq!(page, [0; 4096]);
        assert!(memory.read_slice(&mut page, GuestAddress(63 * PAGE + 1)).is_err());
    }

    #[test]
    fn sizes_that_the_layout_has_no_room_for_are_refused() {
        assert!(matches!(check_size(PAGE + 1), Err(MemoryError::Unaligned(4097))));
        assert!(matches!(check_size(layout::CONTROL + PAGE), Err(MemoryError::TooLarge(_))));
        assert!(check_size(layout::CONTROL).is_ok());
    }
}
