//! `memcpy` and its family: the compiler calls them, and there is no C library here to bring them.
//!
//! Short blocks are moved by a few overlapping register-wide loads and stores (all loads before all stores, so they
//! are right for overlapping blocks too); long ones by `rep movsb`/`rep stosb`, which every CPU that runs KVM has in
//! microcode. Nothing here may become a call to itself: no slices, no loops over bytes that copy.

use core::arch::asm;
use core::ptr::{read_unaligned as load, write_unaligned as store};

/// One move of a block that is at least as long as `T` and at most twice as long.
macro_rules! move_by {
    ($type:ty, $dest:expr, $src:expr, $n:expr) => {{
        let tail = $n - size_of::<$type>();
        // SAFETY: the head lies inside the `n` readable bytes that the caller vouches for.
        let head_value = unsafe { load($src.cast::<$type>()) };
        // SAFETY: so does the tail.
        let tail_value = unsafe { load($src.wrapping_add(tail).cast::<$type>()) };
        // SAFETY: the same bounds, of the `n` writable bytes.
        unsafe { store($dest.cast::<$type>(), head_value) };
        // SAFETY: as above.
        unsafe { store($dest.wrapping_add(tail).cast::<$type>(), tail_value) };
    }};
}

/// Moves up to 32 bytes, overlapping or not; false: longer.
///
/// # Safety
/// `n` bytes at `src` are readable, at `dest` writable.
#[inline(always)]
unsafe fn move_short(dest: *mut u8, src: *const u8, n: usize) -> bool {
    match n {
        0 => {}
        1 => move_by!(u8, dest, src, n),
        2..4 => move_by!(u16, dest, src, n),
        4..8 => move_by!(u32, dest, src, n),
        8..16 => move_by!(u64, dest, src, n),
        16..=32 => move_by!(u128, dest, src, n),
        _ => return false,
    }
    true
}

/// C's `memcpy`.
///
/// # Safety
/// As in C: `n` bytes at `src` are readable, at `dest` writable, and the blocks do not overlap.
#[cfg_attr(weir_guest, unsafe(no_mangle))]
pub unsafe extern "C" fn memcpy(dest: *mut u8, src: *const u8, n: usize) -> *mut u8 {
    // SAFETY: the caller's own promise.
    if !unsafe { move_short(dest, src, n) } {
        // SAFETY: the caller vouches for both blocks; the direction flag is clear by the calling convention.
        unsafe {
            asm!("rep movsb", inout("rcx") n => _, inout("rdi") dest => _, inout("rsi") src => _,
                 options(nostack, preserves_flags));
        }
    }
    dest
}

/// C's `memmove`.
///
/// # Safety
/// As in C: `n` bytes at `src` are readable, at `dest` writable.
#[cfg_attr(weir_guest, unsafe(no_mangle))]
pub unsafe extern "C" fn memmove(dest: *mut u8, src: *const u8, n: usize) -> *mut u8 {
    // SAFETY: the caller's own promise; `move_short` loads everything before it stores.
    if unsafe { move_short(dest, src, n) } {
        return dest;
    }
    if (dest as usize).wrapping_sub(src as usize) >= n {
        // SAFETY: copying upwards never overwrites what is still to be read: `dest` is below `src` or behind its end.
        unsafe {
            asm!("rep movsb", inout("rcx") n => _, inout("rdi") dest => _, inout("rsi") src => _,
                 options(nostack, preserves_flags));
        }
    } else {
        // SAFETY: `dest` is above `src`, so the copy goes downwards from both last bytes; the direction flag is
        // cleared again before anything else runs.
        unsafe {
            asm!("std", "rep movsb", "cld", inout("rcx") n => _,
                 inout("rdi") dest.wrapping_add(n - 1) => _, inout("rsi") src.wrapping_add(n - 1) => _, options(nostack));
        }
    }
    dest
}

/// C's `memset`.
///
/// # Safety
/// As in C: `n` bytes at `dest` are writable.
#[cfg_attr(weir_guest, unsafe(no_mangle))]
pub unsafe extern "C" fn memset(dest: *mut u8, byte: i32, n: usize) -> *mut u8 {
    // SAFETY: the caller vouches for the block; the direction flag is clear by the calling convention.
    unsafe {
        asm!("rep stosb", inout("rcx") n => _, inout("rdi") dest => _, in("al") byte.to_le_bytes()[0],
             options(nostack, preserves_flags));
    }
    dest
}

/// C's `memcmp`.
///
/// # Safety
/// As in C: `n` bytes at `a` and at `b` are readable.
#[cfg_attr(weir_guest, unsafe(no_mangle))]
pub unsafe extern "C" fn memcmp(a: *const u8, b: *const u8, n: usize) -> i32 {
    let mut at = 0;
    while at + 8 <= n {
        // SAFETY: `at + 8 <= n`, within the block.
        let x = unsafe { load(a.wrapping_add(at).cast::<u64>()) };
        // SAFETY: as above.
        let y = unsafe { load(b.wrapping_add(at).cast::<u64>()) };
        if x != y {
            return if x.swap_bytes() < y.swap_bytes() { -1 } else { 1 };
        }
        at += 8;
    }
    while at < n {
        // SAFETY: `at < n`, within the block.
        let x = unsafe { load(a.wrapping_add(at)) };
        // SAFETY: as above.
        let y = unsafe { load(b.wrapping_add(at)) };
        if x != y {
            return i32::from(x) - i32::from(y);
        }
        at += 1;
    }
    0
}

/// BSD's `bcmp`: zero for equal blocks.
///
/// # Safety
/// As in C: `n` bytes at `a` and at `b` are readable.
#[cfg_attr(weir_guest, unsafe(no_mangle))]
pub unsafe extern "C" fn bcmp(a: *const u8, b: *const u8, n: usize) -> i32 {
    // SAFETY: the caller's own promise.
    unsafe { memcmp(a, b, n) }
}

/// C's `strlen`, which the core library's `CStr` refers to.
///
/// # Safety
/// As in C: `text` points to bytes of which one is zero.
#[cfg_attr(weir_guest, unsafe(no_mangle))]
pub unsafe extern "C" fn strlen(text: *const u8) -> usize {
    let mut length = 0;
    // SAFETY: the caller vouches for all bytes up to the first zero, and the loop stops there.
    while unsafe { load(text.wrapping_add(length)) } != 0 {
        length += 1;
    }
    length
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn moves_like_the_slice_methods(
            mut bytes in proptest::collection::vec(any::<u8>(), 200), from in 0usize..100, to in 0usize..100, n in 0usize..100,
        ) {
            let mut expected = bytes.clone();
            expected.copy_within(from..from + n, to);
            let base = bytes.as_mut_ptr();
            // SAFETY: both ranges end below 200.
            unsafe { memmove(base.wrapping_add(to), base.wrapping_add(from), n) };
            prop_assert_eq!(&bytes, &expected);

            let mut copy = vec![0u8; 100];
            // SAFETY: different allocations, both at least `n` long.
            unsafe { memcpy(copy.as_mut_ptr(), bytes.as_ptr(), n) };
            prop_assert_eq!(&copy[..n], &bytes[..n]);
            prop_assert!(copy[n..].iter().all(|byte| *byte == 0));
        }

        #[test]
        fn compares_and_fills_like_the_slice_methods(
            mut a in proptest::collection::vec(0u8..3, 40), b in proptest::collection::vec(0u8..3, 40), n in 0usize..40, fill: u8,
        ) {
            // SAFETY: both are 40 long.
            let order = unsafe { memcmp(a.as_ptr(), b.as_ptr(), n) };
            // SAFETY: as above.
            let equal = unsafe { bcmp(a.as_ptr(), b.as_ptr(), n) };
            prop_assert_eq!(order.cmp(&0), a[..n].cmp(&b[..n]));
            prop_assert_eq!(equal == 0, a[..n] == b[..n]);
            let mut expected = a.clone();
            expected[..n].fill(fill);
            // SAFETY: 40 long.
            unsafe { memset(a.as_mut_ptr(), i32::from(fill), n) };
            prop_assert_eq!(a, expected);
        }
    }
}
