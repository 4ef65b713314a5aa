//! Memory files compared and copied by the pages that they really have: a memfd's holes cost nothing and stay holes.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use rustix::fs::{MemfdFlags, SealFlags, SeekFrom, fcntl_add_seals, memfd_create, seek};
use rustix::io::Errno;
use weir_vmm::memory::PAGE;
use weir_vmm::order::{PageRun, runs};

/// Bytes copied or compared at a time.
const BLOCK: usize = 64 * 1024;

/// A memory file of `size` zeroes, which nobody can resize any more.
pub(super) fn create(name: &str, size: u64) -> io::Result<File> {
    let file = File::from(memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?);
    file.set_len(size)?;
    fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW)?;
    Ok(file)
}

/// From now on nobody can change `file`. Nobody may have it mapped for writing.
pub(super) fn freeze(file: &File) -> io::Result<()> {
    Ok(fcntl_add_seals(file, SealFlags::WRITE | SealFlags::SEAL)?)
}

/// A new memory file with the contents of `file`.
pub(super) fn copy(name: &str, file: &File) -> io::Result<File> {
    let copy = create(name, file.metadata()?.len())?;
    let mut block = vec![0; BLOCK];
    for range in extents(file)? {
        for start in range.clone().step_by(BLOCK) {
            let part = part(&mut block, start, range.end);
            file.read_exact_at(part, start)?;
            copy.write_all_at(part, start)?;
        }
    }
    Ok(copy)
}

/// The pages of `copy` that differ from those of `original`; both have the same size.
pub(super) fn changed(original: &File, copy: &File) -> io::Result<Vec<PageRun>> {
    let mut pages = Vec::new();
    let (mut old, mut new) = (vec![0; BLOCK], vec![0; BLOCK]);
    for range in extents(copy)? {
        for start in range.clone().step_by(BLOCK) {
            let new = part(&mut new, start, range.end);
            let old = part(&mut old, start, range.end);
            original.read_exact_at(old, start)?;
            copy.read_exact_at(new, start)?;
            let page = usize::try_from(PAGE).map_err(io::Error::other)?;
            let pairs = old.chunks(page).zip(new.chunks(page));
            let differ = (start / PAGE..).zip(pairs).filter(|(_, (old, new))| old != new);
            pages.extend(differ.filter_map(|(number, _)| u32::try_from(number).ok()));
        }
    }
    Ok(runs(pages))
}

/// Bytes in pages that `file` really has.
pub(super) fn resident(file: &File) -> io::Result<u64> {
    Ok(extents(file)?.iter().map(|range| range.end - range.start).sum())
}

fn part(block: &mut [u8], start: u64, end: u64) -> &mut [u8] {
    let length = usize::try_from(end - start).unwrap_or(BLOCK).min(BLOCK);
    &mut block[..length]
}

/// The ranges, in ascending order, outside of which `file` has only holes.
///
/// # Errors
/// What `lseek` says, or that `file` is none in which to seek.
pub(super) fn extents(file: &File) -> io::Result<Vec<Range<u64>>> {
    let mut extents = Vec::new();
    let mut at = 0;
    loop {
        let start = match seek(file, SeekFrom::Data(at)) {
            Ok(start) => start,
            Err(Errno::NXIO) => return Ok(extents),
            Err(error) => return Err(error.into()),
        };
        at = seek(file, SeekFrom::Hole(start))?;
        // A device takes any offset, and says that it is there.
        if at <= start {
            return Err(io::Error::other("not a file with data and holes"));
        }
        extents.push(start..at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_equal_keeps_its_holes_and_tells_what_changed() {
        let size = 64 * PAGE;
        let original = create("original", size).unwrap();
        original.write_all_at(b"three", 3 * PAGE + 7).unwrap();
        original.write_all_at(&vec![9; 20 * 4096], 30 * PAGE).unwrap();
        assert_eq!(extents(&original).unwrap(), [3 * PAGE..4 * PAGE, 30 * PAGE..50 * PAGE]);
        assert_eq!(resident(&original).unwrap(), 21 * PAGE);
        freeze(&original).unwrap();
        assert!(original.write_all_at(b"x", 0).is_err());

        let copy = copy("copy", &original).unwrap();
        assert_eq!(extents(&copy).unwrap(), extents(&original).unwrap());
        assert_eq!(changed(&original, &copy).unwrap(), []);
        copy.write_all_at(b"x", 0).unwrap();
        copy.write_all_at(b"three", 3 * PAGE + 7).unwrap();
        copy.write_all_at(b"yz", 32 * PAGE - 1).unwrap();
        copy.write_all_at(b"x", 63 * PAGE).unwrap();
        let run = |first, count| PageRun { first, count };
        assert_eq!(changed(&original, &copy).unwrap(), [run(0, 1), run(31, 2), run(63, 1)]);
        assert!(copy.set_len(size + 1).is_err() && copy.set_len(size - 1).is_err());
    }

    #[test]
    fn what_has_no_data_and_holes_is_refused() {
        let device = File::open("/dev/zero").unwrap();
        assert!(extents(&device).is_err());
        let (pipe, _writer) = io::pipe().unwrap();
        assert!(extents(&File::from(std::os::fd::OwnedFd::from(pipe))).is_err());
    }
}
