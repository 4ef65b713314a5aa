//! Why an image is no guest.

use std::fmt;

use weir_abi::{ABI_VERSION, layout};

use super::SEGMENTS_MAX;

/// Which segment an error is about: its place in the program header table and its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentRef {
    /// Index in the program header table.
    pub index: usize,
    /// `p_vaddr`.
    pub address: u64,
}

impl fmt::Display for SegmentRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "segment {} at {:#x}", self.index, self.address)
    }
}

/// Why [`super::Image::parse`] refused.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// No ELF magic.
    #[error("image is not an ELF file")]
    NotElf,
    /// A header or table reaches behind the end of the file.
    #[error("image is truncated: a header points behind its end")]
    Truncated,
    /// A segment's bytes reach behind the end of the file.
    #[error("image is truncated: {segment} ends at byte {end} of {length}")]
    TruncatedSegment {
        /// Which.
        segment: SegmentRef,
        /// `p_offset + p_filesz`.
        end: u128,
        /// The file's length.
        length: usize,
    },
    /// Something in the headers that is no valid ELF.
    #[error("image is malformed")]
    Malformed(#[source] elf::ParseError),
    /// ELFCLASS32.
    #[error("image is not a 64-bit ELF file")]
    Class,
    /// ELFDATA2MSB.
    #[error("image is not little-endian")]
    Endianness,
    /// Another CPU.
    #[error("image is for ELF machine {0}, not for x86-64 (62)")]
    Machine(u16),
    /// Not ET_EXEC.
    #[error("image has ELF type {0}, not a static executable (2); link it with -no-pie")]
    Type(u16),
    /// No weir note in any PT_NOTE segment.
    #[error("image has no weir ABI note: it is not built for weir")]
    NoAbi,
    /// A weir note of an unknown form.
    #[error("image has a weir ABI note of {0} bytes, not 4")]
    AbiNote(usize),
    /// Built for another weir.
    #[error("image is for weir ABI version {0}, this weir has version {ABI_VERSION}")]
    AbiVersion(u32),
    /// PT_INTERP.
    #[error("image needs a dynamic linker; link it statically")]
    Interpreter,
    /// Too long a program header table.
    #[error("image has {0} segments, more than {SEGMENTS_MAX}")]
    TooManySegments(usize),
    /// More bytes in the file than in memory.
    #[error("{0} is larger in the file than in memory")]
    FileLargerThanMemory(SegmentRef),
    /// `p_vaddr + p_memsz` overflows.
    #[error("{0} ends behind the address space")]
    Overflow(SegmentRef),
    /// Outside of what the ABI gives to images.
    #[error("{0} is outside of {min:#x}..{max:#x}", min = layout::IMAGE_MIN, max = layout::CONTROL)]
    OutOfRange(SegmentRef),
    /// `p_align` is no power of two, or address and file offset disagree modulo it.
    #[error("{0} is misaligned")]
    Misaligned(SegmentRef),
    /// Writable and executable.
    #[error("{0} is writable and executable")]
    WritableCode(SegmentRef),
    /// Two segments share a page.
    #[error("{0} and {1} overlap on a page")]
    Overlap(SegmentRef, SegmentRef),
    /// The entry point is not in executable memory.
    #[error("entry point {0:#x} is in no executable segment")]
    Entry(u64),
}

impl From<elf::ParseError> for ImageError {
    fn from(error: elf::ParseError) -> Self {
        use elf::ParseError as E;
        match error {
            E::BadMagic(_) => Self::NotElf,
            E::UnsupportedElfClass(_) => Self::Class,
            E::UnsupportedElfEndianness(_) => Self::Endianness,
            E::SliceReadError(_) | E::TryFromSliceError(_) | E::BadOffset(_) => Self::Truncated,
            other => Self::Malformed(other),
        }
    }
}
