use super::*;
use proptest::prelude::*;
use std::alloc::{alloc_zeroed, dealloc};

/// A zeroed region with a heap over it.
struct Region {
    base: *mut u8,
    layout: Layout,
}

impl Region {
    fn new(size: usize) -> (Self, Heap) {
        let layout = Layout::from_size_align(size, ARENA).unwrap();
        // SAFETY: the size is not zero.
        let base = unsafe { alloc_zeroed(layout) };
        assert!(!base.is_null());
        // SAFETY: the region is zeroed, and outlives the heap in each test.
        let heap = unsafe { Heap::new(base as usize, base as usize + size) };
        (Self { base, layout }, heap)
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: the region is initialised, and no test holds a block mutably meanwhile.
        unsafe { std::slice::from_raw_parts(self.base, self.layout.size()) }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout.
        unsafe { dealloc(self.base, self.layout) };
    }
}

#[derive(Clone, Debug)]
enum Step {
    Allocate { size: usize, align: u32, zeroed: bool },
    Free(usize),
    Discard,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let size = prop_oneof![4 => 1usize..300, 2 => 1usize..20_000, 1 => 1usize..200_000];
    let align = prop_oneof![6 => 0u32..5, 1 => 5u32..15];
    let allocate =
        (size, align, any::<bool>()).prop_map(|(size, align, zeroed)| Step::Allocate { size, align, zeroed });
    proptest::collection::vec(
        prop_oneof![6 => allocate, 4 => any::<usize>().prop_map(Step::Free), 1 => Just(Step::Discard)],
        1..200,
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn blocks_are_aligned_apart_zeroed_and_keep_their_bytes(steps in steps()) {
        let (region, mut heap) = Region::new(4 << 20);
        let range = region.base as usize..region.base as usize + region.layout.size();
        let mut live: Vec<(usize, Layout, u8)> = Vec::new();
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Allocate { size, align, zeroed } => {
                    let layout = Layout::from_size_align(size, 1 << align).unwrap();
                    let block = if zeroed { heap.allocate_zeroed(layout) } else { heap.allocate(layout) };
                    if block.is_null() {
                        continue;
                    }
                    let start = block as usize;
                    prop_assert_eq!(start % layout.align(), 0);
                    prop_assert!(range.contains(&start) && start + size <= range.end);
                    for (other, layout, _) in &live {
                        prop_assert!(start + size <= *other || other + layout.size() <= start);
                    }
                    // SAFETY: checked above: inside the region, apart from all other blocks.
                    let bytes = unsafe { std::slice::from_raw_parts_mut(block, size) };
                    prop_assert!(!zeroed || bytes.iter().all(|byte| *byte == 0));
                    let mark = u8::try_from(number % 255).unwrap() + 1;
                    bytes.fill(mark);
                    live.push((start, layout, mark));
                }
                Step::Free(which) if !live.is_empty() => {
                    let (start, layout, mark) = live.swap_remove(which % live.len());
                    let offset = start - range.start;
                    prop_assert!(region.bytes()[offset..offset + layout.size()].iter().all(|byte| *byte == mark));
                    // SAFETY: from this heap with this layout, and no longer live.
                    unsafe { heap.free(start as *mut u8, layout) };
                }
                Step::Free(_) => {}
                Step::Discard => {
                    heap.discard(|start, length| {
                        assert!(start % 4096 == 0 && length % 4096 == 0 && length > 0);
                        assert!(range.contains(&start) && start + length <= range.end);
                        // What the VMM may do: blocks that are live must not notice.
                        // SAFETY: inside the region; the heap has just disowned these bytes.
                        unsafe { std::slice::from_raw_parts_mut(start as *mut u8, length) }.fill(0xa5);
                    });
                    prop_assert_eq!(heap.discardable(), 0);
                }
            }
        }
        for (start, layout, mark) in live {
            let offset = start - range.start;
            prop_assert!(region.bytes()[offset..offset + layout.size()].iter().all(|byte| *byte == mark));
            // SAFETY: as above.
            unsafe { heap.free(start as *mut u8, layout) };
        }
        prop_assert_eq!(heap.used(), 0);
    }
}

#[test]
fn zeroed_memory_that_was_never_used_is_not_touched() {
    let (region, mut heap) = Region::new(1 << 20);
    let large = heap.allocate_zeroed(Layout::from_size_align(512 * 1024, 8).unwrap());
    let small = heap.allocate_zeroed(Layout::from_size_align(4096, 8).unwrap());
    assert!(!large.is_null() && !small.is_null());
    // A write by the heap would show if the region had not been zero: make it so behind the heap's back.
    let again = Layout::from_size_align(128 * 1024, 8).unwrap();
    let offset = 640 * 1024;
    // SAFETY: inside the region, not handed out yet.
    unsafe { region.base.wrapping_add(offset).write(9) };
    let fresh = heap.allocate_zeroed(again);
    assert!((fresh as usize..fresh as usize + again.size()).contains(&(region.base as usize + offset)));
    assert_eq!(region.bytes()[offset], 9);
}

#[test]
fn freed_runs_merge_with_each_other_and_with_the_frontier() {
    let (_region, mut heap) = Region::new(1 << 20);
    let quarter = Layout::from_size_align(256 * 1024, 4096).unwrap();
    let whole = Layout::from_size_align(1 << 20, 4096).unwrap();
    for order in [[0, 1, 2, 3], [3, 2, 1, 0], [1, 3, 0, 2], [2, 0, 3, 1]] {
        let blocks = [(); 4].map(|()| heap.allocate(quarter));
        assert!(blocks.iter().all(|block| !block.is_null()) && heap.allocate(quarter).is_null());
        for at in order {
            // SAFETY: from this heap with this layout, freed once.
            unsafe { heap.free(blocks[at], quarter) };
        }
        let block = heap.allocate(whole);
        assert!(!block.is_null());
        // SAFETY: as above.
        unsafe { heap.free(block, whole) };
    }
}

#[test]
fn exhaustion_and_absurd_sizes_give_null() {
    let (_region, mut heap) = Region::new(256 * 1024);
    assert!(heap.allocate(Layout::from_size_align(isize::MAX as usize & !4095, 1).unwrap()).is_null());
    let block = Layout::from_size_align(64, 8).unwrap();
    let count = std::iter::repeat_with(|| heap.allocate(block)).take_while(|block| !block.is_null()).count();
    assert_eq!(count, 4096);
    assert!(Heap::empty().allocate(block).is_null());
}

#[test]
fn what_was_freed_is_given_once_and_counts_as_used() {
    let (region, mut heap) = Region::new(1 << 20);
    let layout = Layout::from_size_align(256 * 1024, 4096).unwrap();
    let blocks = [(); 3].map(|()| heap.allocate(layout));
    let base = region.base as usize;
    let give = |heap: &mut Heap| {
        let mut given = Vec::new();
        heap.discard(|start, length| given.push(((start - base) / 1024, length / 1024)));
        given
    };
    assert_eq!((heap.discardable(), give(&mut heap)), (0, vec![]));
    for block in [blocks[0], blocks[2]] {
        // SAFETY: from this heap with this layout, freed once.
        unsafe { heap.free(block, layout) };
    }
    // The first page of the run below the live block holds the list; the rest joined the frontier.
    assert_eq!(heap.discardable(), 512 * 1024);
    assert_eq!(give(&mut heap), [(4, 252), (512, 256)]);
    assert_eq!((heap.discardable(), give(&mut heap)), (0, vec![]));
    // SAFETY: inside the region, free.
    unsafe { region.base.wrapping_add(600 * 1024).write(9) };
    let zeroed = heap.allocate_zeroed(Layout::from_size_align(400 * 1024, 4096).unwrap());
    assert_eq!(zeroed as usize, base + 512 * 1024);
    assert_eq!(region.bytes()[600 * 1024], 0);
}
