//! What the VMM tells this guest about itself: the boot-info page, checked once, then read.

use core::str;

use weir_abi::{BootInfo, layout};

/// The environment and the arguments, as they stand behind the boot-info.
#[derive(Clone, Copy)]
pub struct Strings<'a> {
    bytes: &'a [u8],
    env_count: u32,
    arg_count: u32,
}

/// Why a boot-info cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BootInfoError {
    /// Not a boot-info.
    Magic,
    /// Made for another ABI.
    Version,
    /// The strings do not lie behind the structure, are too few, or are not UTF-8.
    Strings,
    /// The heap is no range of memory.
    Heap,
    /// The time-stamp counter has no frequency.
    Clock,
}

impl<'a> Strings<'a> {
    /// The strings of `info`, which stands at the start of `page`.
    ///
    /// # Errors
    /// [`BootInfoError::Strings`]: the numbers in `info` do not fit `page`.
    pub fn new(info: &BootInfo, page: &'a [u8]) -> Result<Self, BootInfoError> {
        let start = usize::try_from(info.strings).map_err(|_| BootInfoError::Strings)?;
        let length = usize::try_from(info.strings_length).map_err(|_| BootInfoError::Strings)?;
        let end = start.checked_add(length).ok_or(BootInfoError::Strings)?;
        let bytes = page.get(start..end).ok_or(BootInfoError::Strings)?;
        if length > 0 && start < size_of::<BootInfo>() {
            return Err(BootInfoError::Strings);
        }
        let strings = Self { bytes, env_count: info.env_count, arg_count: info.arg_count };
        let wanted = u64::from(info.env_count) + u64::from(info.arg_count);
        let terminated = bytes.iter().filter(|byte| **byte == 0).count() as u64;
        if terminated < wanted || str::from_utf8(bytes).is_err() {
            return Err(BootInfoError::Strings);
        }
        Ok(strings)
    }

    /// The value of the environment variable `name`.
    pub fn env(self, name: &str) -> Option<&'a str> {
        self.vars().find_map(|(key, value)| (key == name).then_some(value))
    }

    /// All environment variables, in the order given; one without `=` has an empty value.
    pub fn vars(self) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.all().take(self.env_count as usize).map(|entry| entry.split_once('=').unwrap_or((entry, "")))
    }

    /// The arguments.
    pub fn args(self) -> impl Iterator<Item = &'a str> {
        self.all().skip(self.env_count as usize).take(self.arg_count as usize)
    }

    fn all(self) -> impl Iterator<Item = &'a str> {
        // `new` has checked that the bytes are UTF-8; zero bytes never are part of a longer character.
        self.bytes.split(|byte| *byte == 0).map(|part| str::from_utf8(part).unwrap_or_default())
    }
}

/// Checks everything in `info` that the libOS relies on.
///
/// # Errors
/// What is wrong with it.
pub fn check(info: &BootInfo) -> Result<(), BootInfoError> {
    if info.magic != weir_abi::boot::MAGIC {
        return Err(BootInfoError::Magic);
    }
    if info.version != weir_abi::ABI_VERSION {
        return Err(BootInfoError::Version);
    }
    let heap = info.heap;
    if heap.start < layout::IMAGE_MIN || heap.start > heap.end || heap.end > layout::CONTROL {
        return Err(BootInfoError::Heap);
    }
    if info.tsc_hz == 0 {
        return Err(BootInfoError::Clock);
    }
    Ok(())
}

/// The boot-info as it stands now; [`BootInfo::generation`] and what follows from it may change across a PARK.
pub fn info() -> BootInfo {
    // SAFETY: the ABI guarantees a readable, aligned BootInfo at this address from the first instruction on; the VMM
    // writes it only while the guest does not run. Volatile, since it may be another one after a PARK.
    unsafe { core::ptr::read_volatile(layout::BOOT_INFO as *const BootInfo) }
}

/// The boot-info's generation, for a look after each PARK.
pub(crate) fn generation() -> u64 {
    let field = layout::BOOT_INFO + core::mem::offset_of!(BootInfo, generation) as u64;
    // SAFETY: as in `info`.
    unsafe { core::ptr::read_volatile(field as *const u64) }
}

/// The whole boot-info region.
pub(crate) fn page() -> &'static [u8] {
    let length = usize::try_from(layout::BOOT_INFO_SIZE).unwrap_or(0);
    // SAFETY: the ABI guarantees this region to be readable; strings in it do not change while the guest lives.
    unsafe { core::slice::from_raw_parts(layout::BOOT_INFO as *const u8, length) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn page_with(text: &str) -> Vec<u8> {
        let mut page = vec![0; size_of::<BootInfo>()];
        page.extend_from_slice(text.as_bytes());
        page
    }

    fn info_for(env_count: u32, arg_count: u32, length: usize) -> BootInfo {
        let strings = u32::try_from(size_of::<BootInfo>()).unwrap();
        BootInfo {
            env_count,
            arg_count,
            strings,
            strings_length: u32::try_from(length).unwrap(),
            ..BootInfo::new()
        }
    }

    #[test]
    fn environment_comes_before_arguments() {
        let text = "GREETING=hi=ho\0EMPTY=\0BARE\0one\0\0";
        let page = page_with(text);
        let strings = Strings::new(&info_for(3, 2, text.len()), &page).unwrap();
        assert_eq!(strings.env("GREETING"), Some("hi=ho"));
        assert_eq!(
            (strings.env("EMPTY"), strings.env("BARE"), strings.env("one")),
            (Some(""), Some(""), None)
        );
        assert_eq!(strings.args().collect::<Vec<_>>(), ["one", ""]);
    }

    #[test]
    fn too_few_strings_and_strings_out_of_the_page_are_refused() {
        let page = page_with("A=1\0");
        for (env, args, length) in [(1, 1, 4), (1, 0, 5), (u32::MAX, u32::MAX, 4), (1, 0, 3)] {
            assert_eq!(Strings::new(&info_for(env, args, length), &page).err(), Some(BootInfoError::Strings));
        }
        let inside = BootInfo { strings: 8, strings_length: 16, ..BootInfo::new() };
        assert_eq!(Strings::new(&inside, &page).err(), Some(BootInfoError::Strings));
        assert_eq!(Strings::new(&info_for(0, 0, 0), &page).map(|strings| strings.vars().count()), Ok(0));
    }

    proptest! {
        #[test]
        fn any_numbers_and_bytes_are_safe(
            bytes in proptest::collection::vec(prop_oneof![Just(0u8), Just(b'='), any::<u8>()], 0..64),
            start in 0u32..400, length in 0u32..100, env_count in 0u32..6, arg_count in 0u32..6,
        ) {
            let mut page = page_with("");
            page.extend(bytes);
            let info = BootInfo { strings: start, strings_length: length, env_count, arg_count, ..BootInfo::new() };
            if let Ok(strings) = Strings::new(&info, &page) {
                prop_assert_eq!(strings.vars().count(), env_count as usize);
                prop_assert_eq!(strings.args().count(), arg_count as usize);
            }
        }
    }

    #[test]
    fn check_names_what_is_wrong() {
        let good = BootInfo {
            heap: weir_abi::boot::Region { start: layout::IMAGE_MIN, end: layout::IMAGE_MIN * 2 },
            tsc_hz: 1,
            ..BootInfo::new()
        };
        assert_eq!(check(&good), Ok(()));
        assert_eq!(check(&BootInfo { magic: 0, ..good }), Err(BootInfoError::Magic));
        assert_eq!(check(&BootInfo { version: 99, ..good }), Err(BootInfoError::Version));
        assert_eq!(check(&BootInfo { tsc_hz: 0, ..good }), Err(BootInfoError::Clock));
        assert_eq!(
            check(&BootInfo { heap: weir_abi::boot::Region { start: 0, end: 1 }, ..good }),
            Err(BootInfoError::Heap)
        );
    }
}
