//! Size classes of small blocks: powers of two and the steps half-way between, so at most a third is lost.

use core::alloc::Layout;

/// Largest small block; anything bigger is a run of pages.
pub(super) const SMALL_MAX: usize = 16 * 1024;

/// The classes' block sizes, bytes, ascending.
pub(super) const SIZES: [usize; 20] = [
    16, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096, 6144, 8192, 12288,
    SMALL_MAX,
];

/// Alignment that every block of this size has.
pub(super) const fn alignment(size: usize) -> usize {
    1 << size.trailing_zeros()
}

/// The class for `layout`; `None`: large.
pub(super) fn of(layout: Layout) -> Option<usize> {
    let first = SIZES.partition_point(|size| *size < layout.size());
    SIZES[first..].iter().position(|size| alignment(*size) >= layout.align()).map(|offset| first + offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn class_is_the_smallest_that_fits() {
        let class = |size, align| of(Layout::from_size_align(size, align).unwrap()).map(|class| SIZES[class]);
        assert_eq!(class(1, 1), Some(16));
        assert_eq!(class(33, 16), Some(48));
        assert_eq!(class(33, 32), Some(64));
        assert_eq!(class(8, 4096), Some(4096));
        assert_eq!(class(SMALL_MAX, 8), Some(SMALL_MAX));
        assert_eq!(class(SMALL_MAX + 1, 8), None);
        assert_eq!(class(8, 32768), None);
    }
}
