//! Properties of the address space: of the plan, and of the tables as a CPU would walk them.

use std::collections::BTreeMap;

use proptest::prelude::*;
use weir_abi::layout;

use super::plan::{self, Mapping, Plan, PlanError, table_count, table_pages};
use super::tables::{OutOfPages, Tables};
use crate::image::testing::{PF_R, PF_W, PF_X, TestElf, TestSegment};
use crate::image::{Access, Image};
use crate::memory::{LARGE_PAGE, PAGE, page_down};

/// An image with code and, in pages behind it, segments of (gap, size, writable).
fn image(segments: &[(u64, u64, bool)]) -> Image {
    let mut elf = TestElf::guest(layout::IMAGE_MIN, &[0x90; 16]);
    let mut next = layout::IMAGE_MIN + PAGE;
    for &(gap, size, writable) in segments {
        let address = next + gap * PAGE;
        let flags = if writable { PF_R | PF_W } else { PF_R | PF_X };
        let memory_size = size * PAGE;
        elf = elf.with(TestSegment { memory_size, ..TestSegment::load(address, flags, &[]) });
        next = address + memory_size;
    }
    Image::parse(&elf.build()).unwrap()
}

/// One translation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Page {
    physical: u64,
    write: bool,
    user: bool,
    execute: bool,
    size: u64,
}

/// Walks the tables as the CPU does (Intel SDM 3A, 4.5.4 and 4.6), permissions of all levels combined.
fn walk(tables: &Tables, address: u64) -> Option<Page> {
    let (mut table, mut write, mut user, mut execute) = (tables.root, true, true, true);
    for level in (0..4).rev() {
        let shift = 12 + 9 * level;
        let entry = tables.pages[&table][(address >> shift & 511) as usize];
        if entry & 1 == 0 {
            return None;
        }
        write &= entry & 2 != 0;
        user &= entry & 4 != 0;
        execute &= entry >> 63 == 0;
        let size = 1 << shift;
        let base = entry & 0x000f_ffff_ffff_f000;
        if level == 0 || entry & 0x80 != 0 {
            assert!(level < 2, "only 4 KiB and 2 MiB pages");
            assert_eq!(base % size, 0, "reserved bits of a large page are clear");
            return Some(Page { physical: base + address % size, write, user, execute, size });
        }
        table = base;
    }
    None
}

fn build(plan: &Plan) -> Tables {
    Tables::build(&plan.mappings, table_pages()).unwrap()
}

/// What `mapping` promises.
fn promised(mapping: &Mapping, address: u64) -> (u64, bool, bool, bool) {
    (address, mapping.access == Access::Write, mapping.user, mapping.access == Access::Execute)
}

/// Checks all that a plan promises.
fn check(plan: &Plan, memory: u64, network: bool) {
    let mut sorted: Vec<_> = plan.mappings.iter().collect();
    sorted.sort_by_key(|mapping| mapping.range.start);
    for mapping in &sorted {
        assert!(mapping.range.start < mapping.range.end && mapping.range.start >= layout::NULL_GUARD_END);
        assert!(mapping.range.start % PAGE == 0 && mapping.range.end % PAGE == 0);
        let system = mapping.range.start < layout::SYSTEM_END;
        assert_eq!(mapping.user, !system, "{mapping:x?}: the system area, and only it, is ring 0's");
        assert!(!system || mapping.range.end <= layout::SYSTEM_END);
        let device = mapping.range.start >= layout::CONTROL;
        assert!(device || mapping.range.end <= memory);
        let devices = if network { 2 } else { 1 };
        assert!(mapping.range.end <= layout::CONTROL + devices * PAGE);
    }
    for pair in sorted.windows(2) {
        assert!(pair[0].range.end <= pair[1].range.start, "{:x?} overlaps {:x?}", pair[0], pair[1]);
    }
    let mapped = |address: u64| sorted.iter().any(|mapping| mapping.range.contains(&address));
    for (start, end) in [
        (plan.stack.start, plan.stack.end),
        (layout::FAULT_STACK, layout::FAULT_STACK + layout::FAULT_STACK_SIZE),
    ] {
        assert!(!mapped(start - 1) && !mapped(end), "guard pages");
        assert!(mapped(start) && mapped(end - 1));
    }
    assert_eq!(plan.stack.end - plan.stack.start, layout::STACK_SIZE);
    assert_eq!(plan.heap.end, memory);
    assert!(table_pages().all(|page| !mapped(page)), "tables are out of everyone's reach");
}

proptest! {
    #[test]
    fn plans_keep_their_promises_and_tables_say_the_same(
        segments in proptest::collection::vec((0u64..600, 1u64..600, any::<bool>()), 0..8),
        heap in 1u64..2000,
        network in any::<bool>(),
        probes in proptest::collection::vec(any::<(u16, u32)>(), 64),
    ) {
        let image = image(&segments);
        let memory = image.end() + layout::STACK_SIZE + 2 * PAGE + heap * PAGE;
        let plan = plan::plan(&image, memory, network).unwrap();
        check(&plan, memory, network);
        let tables = build(&plan);
        prop_assert_eq!(tables.pages.len(), table_count(&plan.mappings), "the count is exact");
        for mapping in &plan.mappings {
            for address in mapping.range.clone().step_by(4096) {
                let page = walk(&tables, address).unwrap();
                prop_assert_eq!((page.physical, page.write, page.user, page.execute), promised(mapping, address));
                prop_assert!(page.size == PAGE || (mapping.large && page.size == LARGE_PAGE));
            }
        }
        // Everywhere else nothing is mapped.
        for (high, low) in probes {
            let address = page_down(u64::from(high) << 32 | u64::from(low)) & 0xffff_ffff_ffff;
            for address in [address, address % (4 << 30)] {
                let mapped = plan.mappings.iter().any(|mapping| mapping.range.contains(&address));
                prop_assert_eq!(walk(&tables, address).is_some(), mapped, "{:#x}", address);
            }
        }
    }
}

#[test]
fn the_largest_memory_needs_few_tables_and_uses_large_pages() {
    let plan = plan::plan(&image(&[]), layout::CONTROL, true).unwrap();
    check(&plan, layout::CONTROL, true);
    let tables = build(&plan);
    assert!(tables.pages.len() < 16, "{} tables", tables.pages.len());
    assert_eq!(walk(&tables, 1 << 30).unwrap().size, LARGE_PAGE);
    assert_eq!(walk(&tables, layout::CONTROL - 1).unwrap().size, LARGE_PAGE);
    assert_eq!(walk(&tables, 0), None);
    assert_eq!(walk(&tables, layout::VIRTIO_NET + PAGE), None);
}

#[test]
fn tables_are_where_no_device_reaches() {
    let pages: BTreeMap<u64, ()> = table_pages().map(|page| (page, ())).collect();
    assert!(pages.keys().all(|page| (layout::SYSTEM..layout::IMAGE_MIN).contains(page)));
    let plan = plan::plan(&image(&[]), 16 << 20, true).unwrap();
    assert!(build(&plan).pages.keys().all(|page| pages.contains_key(page)));
}

#[test]
fn an_image_may_be_as_large_as_there_are_tables() {
    let pages = |megabytes: u64| [(0, megabytes << 8, true)];
    let plan = plan::plan(&image(&pages(800)), 1 << 30, false).unwrap();
    check(&plan, 1 << 30, false);
    assert_eq!(build(&plan).pages.len(), table_count(&plan.mappings));
    let error = plan::plan(&image(&pages(1000)), 2 << 30, false).unwrap_err();
    assert!(matches!(error, PlanError::Tables { .. }), "{error}");
}

#[test]
fn memory_must_hold_image_stack_and_a_page_of_heap() {
    let image = image(&[(0, 3, true)]);
    let needed = image.end() + PAGE + layout::STACK_SIZE + PAGE + PAGE;
    assert_eq!(plan::plan(&image, needed, false).unwrap().heap.start, needed - PAGE);
    let error = plan::plan(&image, needed - PAGE, false).unwrap_err();
    assert_eq!(error, PlanError::Memory { memory: needed - PAGE, needed });
}

#[test]
fn too_few_pages_for_tables_are_an_error() {
    let plan = plan::plan(&image(&[]), 16 << 20, false).unwrap();
    let result = Tables::build(&plan.mappings, table_pages().take(3));
    assert_eq!(result.unwrap_err(), OutOfPages);
}
