//! Loadable segments.

use std::ops::Range;

use elf::abi::{PF_W, PF_X, PT_INTERP, PT_LOAD};
use elf::segment::ProgramHeader;
use weir_abi::layout;

use super::header::Elf;
use super::{ImageError, SegmentRef};
use crate::memory::{PAGE, page_down, page_up};

/// What a page may be used for. There is no fourth: writable code does not exist here, and x86 cannot make mapped
/// memory unreadable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Read only.
    Read,
    /// Read and write.
    Write,
    /// Read and execute.
    Execute,
}

/// One loadable segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Address of its first byte.
    pub start: u64,
    /// Bytes in memory; those behind the ones from the file are zero.
    pub size: u64,
    /// Where its bytes are in the file.
    pub file: Range<usize>,
    /// Permissions.
    pub access: Access,
}

impl Segment {
    /// Its addresses.
    pub fn range(&self) -> Range<u64> {
        self.start..self.start + self.size
    }

    /// The pages it touches.
    pub fn pages(&self) -> Range<u64> {
        page_down(self.start)..page_up(self.start + self.size)
    }
}

/// All loadable segments of a file of `length` bytes, sorted by address.
pub(super) fn collect(elf: &Elf<'_>, length: usize) -> Result<Vec<Segment>, ImageError> {
    let mut found = Vec::new();
    for (index, header) in elf.segments().into_iter().flatten().enumerate() {
        let name = SegmentRef { index, address: header.p_vaddr };
        match header.p_type {
            PT_INTERP => return Err(ImageError::Interpreter),
            PT_LOAD => found.push((name, check(name, &header, length)?)),
            _ => {}
        }
    }
    // A segment of size zero occupies nothing, wherever it says it is.
    found.retain(|(_, segment)| segment.size > 0);
    found.sort_by_key(|(_, segment)| segment.start);
    for pair in found.windows(2) {
        let [(low_name, low), (high_name, high)] = pair else { continue };
        if low.pages().end > high.pages().start {
            return Err(ImageError::Overlap(*low_name, *high_name));
        }
    }
    Ok(found.into_iter().map(|(_, segment)| segment).collect())
}

/// Checks one program header on its own.
fn check(name: SegmentRef, header: &ProgramHeader, length: usize) -> Result<Segment, ImageError> {
    if header.p_filesz > header.p_memsz {
        return Err(ImageError::FileLargerThanMemory(name));
    }
    // Rounding up to a page must not overflow either.
    let end = header.p_vaddr.checked_add(header.p_memsz).filter(|end| end.checked_add(PAGE - 1).is_some());
    let end = end.ok_or(ImageError::Overflow(name))?;
    if header.p_memsz > 0 && (header.p_vaddr < layout::IMAGE_MIN || page_up(end) > layout::CONTROL) {
        return Err(ImageError::OutOfRange(name));
    }
    let align = header.p_align.max(1);
    if !align.is_power_of_two() || header.p_vaddr % align != header.p_offset % align {
        return Err(ImageError::Misaligned(name));
    }
    let access = match (header.p_flags & PF_W != 0, header.p_flags & PF_X != 0) {
        (true, true) => return Err(ImageError::WritableCode(name)),
        (true, false) => Access::Write,
        (false, true) => Access::Execute,
        (false, false) => Access::Read,
    };
    let file_end = u128::from(header.p_offset) + u128::from(header.p_filesz);
    let truncated = || ImageError::TruncatedSegment { segment: name, end: file_end, length };
    let stop = usize::try_from(file_end).ok().filter(|&stop| stop <= length).ok_or_else(truncated)?;
    let start = usize::try_from(header.p_offset).map_err(|_| truncated())?;
    Ok(Segment { start: header.p_vaddr, size: header.p_memsz, file: start..stop, access })
}
