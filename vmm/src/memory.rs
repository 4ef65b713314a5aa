//! Guest memory: one anonymous, private mapping from guest-physical address zero.
//!
//! Nothing is reserved (a guest pays for the pages it touches) and nothing of a tenant's memory goes into core dumps.

use vm_memory::mmap::{MmapRegionBuilder, MmapRegionError};
use vm_memory::{GuestAddress, GuestMemoryMmap, GuestRegionMmap};
use weir_abi::layout;

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

/// Maps `bytes` of zeroed guest memory at guest-physical address zero.
///
/// # Errors
/// See [`MemoryError`].
pub fn allocate(bytes: u64) -> Result<GuestMemoryMmap, MemoryError> {
    check_size(bytes)?;
    let size = usize::try_from(bytes).map_err(|_| MemoryError::TooLarge(bytes))?;
    let mapping = MmapRegionBuilder::new(size)
        .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
        .with_mmap_flags(libc::MAP_ANONYMOUS | libc::MAP_PRIVATE | libc::MAP_NORESERVE)
        .build()
        .map_err(|source| MemoryError::Map { size: bytes, source })?;
    sys::exclude_from_core_dump(&mapping).map_err(MemoryError::Advise)?;
    let region = GuestRegionMmap::new(mapping, GuestAddress(0)).ok_or(MemoryError::Range(bytes))?;
    GuestMemoryMmap::from_regions(vec![region]).map_err(|_| MemoryError::Range(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use vm_memory::{Bytes, GuestMemoryBackend, GuestMemoryRegion};

    #[test]
    fn memory_is_zero_and_starts_at_zero() {
        let memory = allocate(64 * PAGE).unwrap();
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
