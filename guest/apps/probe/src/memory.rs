//! Memory without measure.

use alloc::vec;
use alloc::vec::Vec;

const BLOCK: usize = 64 * 1024;
const PAGE: usize = 4096;

/// A block of `size` bytes, each page of it touched; `None`: there is none.
pub(crate) fn touched(size: usize) -> Option<Vec<u8>> {
    let mut block = Vec::new();
    block.try_reserve_exact(size).ok()?;
    block.resize(size, 1);
    Some(core::hint::black_box(block))
}

/// Takes memory and touches each page of it, until the allocator panics.
pub(crate) fn hoard() -> ! {
    let mut blocks: Vec<Vec<u8>> = Vec::new();
    loop {
        let mut block = vec![0; BLOCK];
        block.iter_mut().step_by(PAGE).for_each(|byte| *byte = 1);
        blocks.push(core::hint::black_box(block));
    }
}
