//! The ELF images that guests come in: checked completely before anything of them reaches a VM.
//!
//! An image is written by a tenant, so nothing in it is believed: every header field is checked against the file, the
//! address space and the other segments. What passes is small and plain ([`Image`]): where the code starts, and
//! which bytes of the file go where with which permissions.
//! Format: System V ABI (gabi) chapters 4 and 5, x86-64 psABI; the version note is [`weir_abi::note`].

mod error;
mod header;
mod segment;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

pub use error::{ImageError, SegmentRef};
pub use segment::{Access, Segment};

/// Most program headers an image may have. Linkers make about ten.
pub const SEGMENTS_MAX: usize = 64;

/// A checked image: everything the loader needs but the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    entry: u64,
    segments: Vec<Segment>,
}

impl Image {
    /// Checks the whole of `bytes`.
    ///
    /// # Errors
    /// The first thing found wrong, see [`ImageError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, ImageError> {
        let elf = header::parse(bytes)?;
        header::check_abi(&elf)?;
        let segments = segment::collect(&elf, bytes.len())?;
        let entry = elf.ehdr.e_entry;
        let executable = |s: &Segment| s.access == Access::Execute && s.range().contains(&entry);
        if !segments.iter().any(executable) {
            return Err(ImageError::Entry(entry));
        }
        Ok(Self { entry, segments })
    }

    /// Address of the first instruction.
    pub fn entry(&self) -> u64 {
        self.entry
    }

    /// What to load, by ascending address; page-rounded they do not overlap.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// First page boundary behind the last segment.
    pub fn end(&self) -> u64 {
        self.segments.last().map_or(weir_abi::layout::IMAGE_MIN, |s| s.pages().end)
    }
}
