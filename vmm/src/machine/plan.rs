//! Where everything in a VM's address space is: a pure list of mappings, made from the image and the memory size.
//!
//! Kept apart from the page-table writer so that its promises (nothing overlaps, nothing is writable and executable,
//! the system area is never the user's, null faults) can be tested on the list itself.

use std::collections::BTreeSet;
use std::ops::Range;

use weir_abi::boot::Region;
use weir_abi::layout;

use crate::image::{Access, Image};
use crate::memory::{LARGE_PAGE, PAGE};

use super::system;

/// A run of pages, mapped at their own addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mapping {
    /// Page-aligned addresses.
    pub(crate) range: Range<u64>,
    /// What they may be used for.
    pub(crate) access: Access,
    /// Reachable from ring 3.
    pub(crate) user: bool,
    /// Uses 2 MiB pages where they fit.
    pub(crate) large: bool,
}

/// The whole address space.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// All that is mapped; everything else faults.
    pub(crate) mappings: Vec<Mapping>,
    /// The initial stack, a guard page on either side.
    pub(crate) stack: Region,
    /// Free memory for the guest.
    pub(crate) heap: Region,
}

/// Why an image and a memory size do not make a VM.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum PlanError {
    #[error("memory of {memory} bytes is too small: the image needs at least {needed}")]
    Memory { memory: u64, needed: u64 },
    #[error("image needs {needed} page tables, there is room for {available}")]
    Tables { needed: usize, available: usize },
}

/// Lays out a VM with `memory` bytes; `network`: it has a network device.
pub(crate) fn plan(image: &Image, memory: u64, network: bool) -> Result<Plan, PlanError> {
    let stack_start = image.end() + PAGE;
    let stack = Region { start: stack_start, end: stack_start + layout::STACK_SIZE };
    let heap = Region { start: stack.end + PAGE, end: memory };
    let needed = heap.start + PAGE;
    if memory < needed {
        return Err(PlanError::Memory { memory, needed });
    }
    let mappings = mappings(image, stack, heap, network);
    let (needed, available) = (table_count(&mappings), table_pages().count());
    if needed > available {
        return Err(PlanError::Tables { needed, available });
    }
    Ok(Plan { mappings, stack, heap })
}

/// Pages for page tables: the rest of the system area, then the unmapped gap below the lowest image address. All of
/// them lie below [`layout::IMAGE_MIN`], where no device may read or write on a guest's behalf.
pub(crate) fn table_pages() -> impl Iterator<Item = u64> {
    let gap = layout::BOOT_INFO + layout::BOOT_INFO_SIZE..layout::IMAGE_MIN;
    let pages = |range: Range<u64>| (range.start / PAGE..range.end / PAGE).map(|number| number * PAGE);
    pages(system::TABLES..layout::SYSTEM_END).chain(pages(gap))
}

/// Page tables (of all four levels) that `mappings` need.
pub(crate) fn table_count(mappings: &[Mapping]) -> usize {
    let mut directories = BTreeSet::new();
    let mut tables = BTreeSet::new();
    for mapping in mappings {
        directories.extend(mapping.range.start >> 30..=(mapping.range.end - 1) >> 30);
        for slot in mapping.range.start / LARGE_PAGE..=(mapping.range.end - 1) / LARGE_PAGE {
            let covers =
                mapping.range.start <= slot * LARGE_PAGE && (slot + 1) * LARGE_PAGE <= mapping.range.end;
            if !(mapping.large && covers) {
                tables.insert(slot);
            }
        }
    }
    // One table at each of the two upper levels: everything is below 512 GiB.
    2 + directories.len() + tables.len()
}

fn mappings(image: &Image, stack: Region, heap: Region, network: bool) -> Vec<Mapping> {
    let system = |range, access| Mapping { range, access, user: false, large: false };
    let user = |range, access| Mapping { range, access, user: true, large: false };
    let mut list = vec![
        system(system::GDT..system::TSS + PAGE, Access::Read),
        system(system::GATES..system::GATES + PAGE, Access::Execute),
        system(system::PAGE_FAULT_STACK..system::PAGE_FAULT_STACK + PAGE, Access::Write),
        system(system::DOUBLE_FAULT_STACK..system::DOUBLE_FAULT_STACK + PAGE, Access::Write),
        user(layout::GATE_CODE..layout::GATE_CODE + PAGE, Access::Execute),
        user(layout::TRAP_AREA..layout::TRAP_AREA + PAGE, Access::Write),
        user(layout::FAULT_STACK..layout::FAULT_STACK + layout::FAULT_STACK_SIZE, Access::Write),
        user(layout::BOOT_INFO..layout::BOOT_INFO + layout::BOOT_INFO_SIZE, Access::Read),
    ];
    list.extend(image.segments().iter().map(|segment| user(segment.pages(), segment.access)));
    list.push(user(stack.start..stack.end, Access::Write));
    list.push(Mapping { large: true, ..user(heap.start..heap.end, Access::Write) });
    list.push(user(layout::CONTROL..layout::CONTROL + PAGE, Access::Write));
    if network {
        list.push(user(layout::VIRTIO_NET..layout::VIRTIO_NET + PAGE, Access::Write));
    }
    list
}
