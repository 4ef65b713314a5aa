//! The ELF note by which an image says that it is a weir guest, and for which ABI version.
//!
//! The note lives in a section `.note.weir` (in a `PT_NOTE` segment): name [`NAME`], type [`TYPE`], descriptor the
//! ABI version as a little-endian u32.

/// Note name, without the terminating NUL that the ELF encoding adds.
pub const NAME: &str = "weir";
/// Note type of the version note.
pub const TYPE: u32 = 1;

/// The whole note as it stands in the section, for a guest to place there with `#[link_section]`.
#[repr(C, align(4))]
pub struct Note {
    name_size: u32,
    descriptor_size: u32,
    kind: u32,
    name: [u8; 8],
    version: u32,
}

impl Note {
    /// The note for `version`.
    pub const fn new(version: u32) -> Self {
        Self { name_size: 5, descriptor_size: 4, kind: TYPE, name: *b"weir\0\0\0\0", version }
    }
}
