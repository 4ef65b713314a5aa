//! The ELF header and the ABI note.

use elf::ElfBytes;
use elf::abi::{EI_CLASS, ELFCLASS64, ELFMAGIC, EM_X86_64, ET_EXEC, PT_NOTE};
use elf::endian::LittleEndian;
use elf::note::Note;
use weir_abi::{ABI_VERSION, note};

use super::{ImageError, SEGMENTS_MAX};

pub(super) type Elf<'a> = ElfBytes<'a, LittleEndian>;

/// Parses the header and finds the tables; refuses what no weir guest can be.
pub(super) fn parse(bytes: &[u8]) -> Result<Elf<'_>, ImageError> {
    if !bytes.starts_with(&ELFMAGIC) {
        return Err(ImageError::NotElf);
    }
    // Before anything of another size is misread.
    if *bytes.get(EI_CLASS).ok_or(ImageError::Truncated)? != ELFCLASS64 {
        return Err(ImageError::Class);
    }
    let elf = Elf::minimal_parse(bytes)?;
    if elf.ehdr.e_machine != EM_X86_64 {
        return Err(ImageError::Machine(elf.ehdr.e_machine));
    }
    if elf.ehdr.e_type != ET_EXEC {
        return Err(ImageError::Type(elf.ehdr.e_type));
    }
    let count = elf.segments().map_or(0, |table| table.len());
    if count > SEGMENTS_MAX {
        return Err(ImageError::TooManySegments(count));
    }
    Ok(elf)
}

/// Looks for the weir note and compares versions. Checked before the segments: an image for another version may
/// follow another layout.
pub(super) fn check_abi(elf: &Elf<'_>) -> Result<(), ImageError> {
    let segments = elf.segments().into_iter().flatten();
    for segment in segments.filter(|segment| segment.p_type == PT_NOTE) {
        for entry in elf.segment_data_as_notes(&segment)? {
            let Note::Unknown(entry) = entry else { continue };
            let is_ours = entry.name_str().is_ok_and(|name| name == note::NAME);
            if !is_ours || entry.n_type != u64::from(note::TYPE) {
                continue;
            }
            let version = entry.desc.try_into().map_err(|_| ImageError::AbiNote(entry.desc.len()))?;
            return match u32::from_le_bytes(version) {
                ABI_VERSION => Ok(()),
                other => Err(ImageError::AbiVersion(other)),
            };
        }
    }
    Err(ImageError::NoAbi)
}
