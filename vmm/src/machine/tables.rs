//! Page tables from a list of mappings (Intel SDM 3A, 4.5: four-level paging), identity-mapped.
//!
//! Pure: the result is a list of pages and their contents, which the builder of the VM copies into guest memory.
//! Accessed and dirty bits are set beforehand, so that the CPU never writes a table. Tables are never changed once a
//! VM runs.

use std::collections::BTreeMap;

use crate::image::Access;
use crate::memory::{LARGE_PAGE, PAGE};

use super::plan::Mapping;

const PRESENT: u64 = 1;
const WRITE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
const LARGE: u64 = 1 << 7;
const NO_EXECUTE: u64 = 1 << 63;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// Level of a page directory, whose entries map large pages.
const DIRECTORY: u32 = 1;
/// Level of the root.
const ROOT: u32 = 3;

/// More tables needed than pages were set aside; a bug in the plan.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("no page left for page tables")]
pub(crate) struct OutOfPages;

/// Finished page tables.
#[derive(Debug)]
pub(crate) struct Tables {
    /// Address of the root, for CR3.
    pub(crate) root: u64,
    /// Each table's address and contents.
    pub(crate) pages: BTreeMap<u64, [u64; 512]>,
}

impl Tables {
    /// Builds tables for `mappings` on pages taken from `free`.
    pub(crate) fn build(
        mappings: &[Mapping],
        mut free: impl Iterator<Item = u64>,
    ) -> Result<Self, OutOfPages> {
        let root = free.next().ok_or(OutOfPages)?;
        let mut tables = Self { root, pages: BTreeMap::from([(root, [0; 512])]) };
        for mapping in mappings {
            let mut address = mapping.range.start;
            while address < mapping.range.end {
                let fits = address.is_multiple_of(LARGE_PAGE) && address + LARGE_PAGE <= mapping.range.end;
                let large = mapping.large && fits;
                let level = if large { DIRECTORY } else { 0 };
                tables.set(address, level, leaf(mapping, address, large), &mut free)?;
                address += if large { LARGE_PAGE } else { PAGE };
            }
        }
        Ok(tables)
    }

    /// Writes `entry` for `address` at `level`, adding the tables above it.
    fn set(
        &mut self,
        address: u64,
        level: u32,
        entry: u64,
        free: &mut impl Iterator<Item = u64>,
    ) -> Result<(), OutOfPages> {
        let mut table = self.root;
        for upper in (level + 1..=ROOT).rev() {
            let slot = &mut self.pages.get_mut(&table).ok_or(OutOfPages)?[index(address, upper)];
            if *slot == 0 {
                let page = free.next().ok_or(OutOfPages)?;
                // Permissions are decided at the leaf alone; upper levels allow everything.
                *slot = page | PRESENT | WRITE | USER | ACCESSED;
                self.pages.insert(page, [0; 512]);
                table = page;
            } else {
                table = *slot & ADDRESS;
            }
        }
        self.pages.get_mut(&table).ok_or(OutOfPages)?[index(address, level)] = entry;
        Ok(())
    }
}

/// Index of `address` in its table at `level`.
fn index(address: u64, level: u32) -> usize {
    (address >> (12 + 9 * level) & 511) as usize
}

/// The entry that maps one page of `mapping`.
fn leaf(mapping: &Mapping, address: u64, large: bool) -> u64 {
    let access = match mapping.access {
        Access::Read => NO_EXECUTE,
        Access::Write => NO_EXECUTE | WRITE | DIRTY,
        Access::Execute => 0,
    };
    let user = if mapping.user { USER } else { 0 };
    let size = if large { LARGE } else { 0 };
    address | PRESENT | ACCESSED | access | user | size
}
