//! Every way to be a bad image, and random ones.

use proptest::prelude::*;
use weir_abi::{ABI_VERSION, layout};

use super::testing::{PF_R, PF_W, PF_X, TestElf, TestSegment, put};
use super::{Access, Image, ImageError, SEGMENTS_MAX};

const CODE: u64 = layout::IMAGE_MIN;
const DATA: u64 = layout::IMAGE_MIN + 0x3000;

fn good() -> TestElf {
    TestElf::guest(CODE, &[0x90; 100]).with(data(DATA + 8))
}

/// Eight bytes of data, then zeros: 0x1800 bytes in all.
fn data(address: u64) -> TestSegment {
    TestSegment { memory_size: 0x1800, ..TestSegment::load(address, PF_R | PF_W, &[1; 8]) }
}

/// Parses the good image after `change` to its one data segment.
fn with_data(change: impl FnOnce(&mut TestSegment)) -> Result<Image, ImageError> {
    let mut elf = good();
    change(&mut elf.segments[2]);
    Image::parse(&elf.build())
}

/// Parses the good image after `bytes` were written over it.
fn patched(at: usize, bytes: &[u8]) -> Result<Image, ImageError> {
    let mut file = good().build();
    put(&mut file, at, bytes);
    Image::parse(&file)
}

#[test]
fn a_good_image_is_read_exactly() {
    let file = good().build();
    let image = Image::parse(&file).unwrap();
    assert_eq!(image.entry(), CODE);
    let [code, data] = image.segments() else { panic!("two segments: {image:?}") };
    assert_eq!((code.range(), code.access), (CODE..CODE + 100, Access::Execute));
    assert_eq!(file[code.file.clone()], [0x90; 100]);
    assert_eq!((data.range(), data.access), (DATA + 8..DATA + 0x1808, Access::Write));
    assert_eq!(data.pages(), DATA..DATA + 0x2000);
    assert_eq!(file[data.file.clone()], [1; 8]);
    assert_eq!(image.end(), DATA + 0x2000);
}

#[test]
fn segments_are_sorted_and_empty_ones_dropped() {
    let empty = TestSegment { memory_size: 0, ..TestSegment::load(0, PF_R, &[]) };
    let elf = good().with(empty).with(TestSegment::load(CODE + 0x1000, PF_R, &[2; 4096]));
    let image = Image::parse(&elf.build()).unwrap();
    let starts: Vec<_> = image.segments().iter().map(|segment| segment.start).collect();
    assert_eq!(starts, [CODE, CODE + 0x1000, DATA + 8]);
    assert_eq!(image.segments()[1].access, Access::Read);
}

#[test]
fn other_files_are_refused() {
    assert!(matches!(Image::parse(b""), Err(ImageError::NotElf)));
    assert!(matches!(Image::parse(b"\x7fEL"), Err(ImageError::NotElf)));
    assert!(matches!(Image::parse(b"#!/bin/sh\necho no\n"), Err(ImageError::NotElf)));
    assert!(matches!(patched(4, &[1]), Err(ImageError::Class)));
    assert!(matches!(patched(5, &[2]), Err(ImageError::Endianness)));
    assert!(matches!(patched(18, &[183, 0]), Err(ImageError::Machine(183))));
    assert!(matches!(patched(16, &[3, 0]), Err(ImageError::Type(3))));
    assert!(matches!(patched(6, &[9]), Err(ImageError::Malformed(_))));
}

#[test]
fn the_abi_note_decides() {
    let mut elf = good();
    elf.segments.remove(0);
    assert!(matches!(Image::parse(&elf.build()), Err(ImageError::NoAbi)));

    let other = TestElf { segments: vec![TestSegment::note(ABI_VERSION + 1)], ..good() };
    let error = Image::parse(&other.build()).unwrap_err();
    assert!(matches!(error, ImageError::AbiVersion(version) if version == ABI_VERSION + 1));
    let text = error.to_string();
    assert!(text.contains(&format!("version {}", ABI_VERSION + 1)), "{text}");
    assert!(text.contains(&format!("version {ABI_VERSION}")), "{text}");

    let mut short = good();
    short.segments[0].bytes[4] = 2;
    assert!(matches!(Image::parse(&short.build()), Err(ImageError::AbiNote(2))));

    // Somebody else's note is passed over.
    let mut foreign = good();
    foreign.segments[0].bytes[12..16].copy_from_slice(b"reiw");
    assert!(matches!(Image::parse(&foreign.build()), Err(ImageError::NoAbi)));
    let mut both = good();
    both.segments.insert(0, foreign.segments[0].clone());
    assert!(Image::parse(&both.build()).is_ok());
}

#[test]
fn a_dynamic_linker_is_refused() {
    let interpreter = TestSegment { kind: 3, ..TestSegment::load(0, PF_R, b"/lib64/ld-linux-x86-64.so.2\0") };
    assert!(matches!(Image::parse(&good().with(interpreter).build()), Err(ImageError::Interpreter)));
}

#[test]
fn the_number_of_segments_is_bounded() {
    let page = |index: usize| TestSegment::load(CODE + index as u64 * 0x1000, PF_R, &[3]);
    let elf =
        |count: usize| (2..count).fold(TestElf::guest(CODE, &[0x90]), |elf, index| elf.with(page(index)));
    assert!(Image::parse(&elf(SEGMENTS_MAX).build()).is_ok());
    let error = Image::parse(&elf(SEGMENTS_MAX + 1).build()).unwrap_err();
    assert!(matches!(error, ImageError::TooManySegments(65)), "{error}");
}

#[test]
fn overlapping_segments_are_both_named() {
    // Not a byte in common, but a page.
    let error =
        Image::parse(&good().with(TestSegment::load(CODE + 0x800, PF_R, &[0; 8])).build()).unwrap_err();
    assert_eq!(error.to_string(), "segment 1 at 0x200000 and segment 3 at 0x200800 overlap on a page");
    let behind = TestSegment::load(DATA + 0x1ff0, PF_R, &[0; 8]);
    assert!(matches!(Image::parse(&good().with(behind).build()), Err(ImageError::Overlap(_, _))));
    let same = TestSegment::load(CODE, PF_R, &[0; 8]);
    assert!(matches!(Image::parse(&good().with(same).build()), Err(ImageError::Overlap(_, _))));
}

#[test]
fn segments_stay_in_their_place() {
    let at = |address: u64, size: u64| {
        with_data(|segment| {
            segment.address = address;
            segment.memory_size = size;
            segment.align = 1;
        })
    };
    assert!(at(layout::CONTROL - 0x1000, 0x1000).is_ok());
    assert!(matches!(at(layout::CONTROL - 0x1000, 0x1001), Err(ImageError::OutOfRange(_))));
    assert!(matches!(at(layout::IMAGE_MIN - 0x1000, 0x1000), Err(ImageError::OutOfRange(_))));
    assert!(matches!(at(0, 8), Err(ImageError::OutOfRange(_))));
    assert!(matches!(at(layout::CONTROL, 8), Err(ImageError::OutOfRange(_))));
    assert!(matches!(at(1 << 47, 8), Err(ImageError::OutOfRange(_))));
    assert!(matches!(at(u64::MAX, 8), Err(ImageError::Overflow(_))));
    assert!(matches!(at(DATA, u64::MAX), Err(ImageError::Overflow(_))));
    // Rounding up to a page overflows although the sum does not.
    assert!(matches!(at(u64::MAX - 8, 8), Err(ImageError::Overflow(_))));
}

#[test]
fn sizes_and_alignments_must_agree() {
    assert!(matches!(with_data(|s| s.memory_size = 7), Err(ImageError::FileLargerThanMemory(_))));
    assert!(matches!(with_data(|s| s.align = 0x1800), Err(ImageError::Misaligned(_))));
    assert!(with_data(|s| s.align = 0).is_ok());
    let offset = TestElf::program_header(2) + 8;
    assert!(matches!(patched(offset, &0x101u64.to_le_bytes()), Err(ImageError::Misaligned(_))));
}

#[test]
fn bytes_behind_the_end_of_the_file_are_missed() {
    let (offset, size) = (TestElf::program_header(1) + 8, TestElf::program_header(1) + 32);
    let error = patched(offset, &0x4000_0000u64.to_le_bytes()).unwrap_err();
    assert!(matches!(error, ImageError::TruncatedSegment { .. }), "{error}");
    // Offset plus size overflows.
    let error = patched(offset, &(u64::MAX - 0xfff).to_le_bytes()).unwrap_err();
    assert!(matches!(error, ImageError::TruncatedSegment { .. }), "{error}");
    let mut file = good().build();
    put(&mut file, size, &0x2000u64.to_le_bytes());
    put(&mut file, size + 8, &0x2000u64.to_le_bytes());
    assert!(matches!(Image::parse(&file), Err(ImageError::TruncatedSegment { .. })));
}

#[test]
fn nothing_is_writable_and_executable() {
    let error = with_data(|segment| segment.flags = PF_R | PF_W | PF_X).unwrap_err();
    assert!(matches!(error, ImageError::WritableCode(_)), "{error}");
}

#[test]
fn the_entry_point_must_be_code() {
    for entry in [0, CODE - 1, CODE + 100, DATA + 8, u64::MAX] {
        let elf = TestElf { entry, ..good() };
        let error = Image::parse(&elf.build()).unwrap_err();
        assert!(matches!(error, ImageError::Entry(found) if found == entry), "{error}");
    }
    let last = TestElf { entry: CODE + 99, ..good() };
    assert!(Image::parse(&last.build()).is_ok());
}

#[test]
fn every_truncation_is_an_error() {
    let file = good().build();
    for length in 0..file.len() {
        let error = Image::parse(&file[..length]).expect_err("the last byte belongs to a segment");
        let named = matches!(
            error,
            ImageError::NotElf
                | ImageError::Truncated
                | ImageError::TruncatedSegment { .. }
                | ImageError::NoAbi
        );
        assert!(named, "{length} bytes: {error}");
    }
}

/// What the rest of the VMM relies on.
fn check(image: &Image, length: usize) {
    let mut end = layout::IMAGE_MIN;
    for segment in image.segments() {
        assert!(segment.pages().start >= end && segment.size > 0);
        assert!(segment.file.len() as u64 <= segment.size && segment.file.end <= length);
        end = segment.pages().end;
    }
    assert!(end <= layout::CONTROL);
    assert!(
        image.segments().iter().any(|s| s.access == Access::Execute && s.range().contains(&image.entry()))
    );
}

proptest! {
    #[test]
    fn flipped_bits_never_panic_and_never_pass_a_bad_image(flips in proptest::collection::vec((0usize..400, 0u8..8), 1..8)) {
        let mut file = good().build();
        for (at, bit) in flips {
            file[at] ^= 1 << bit;
        }
        if let Ok(image) = Image::parse(&file) {
            check(&image, file.len());
        }
    }

    #[test]
    fn random_headers_never_panic(
        header in proptest::collection::vec(any::<u8>(), 56),
        index in 0usize..3,
        length in 0usize..0x4000,
    ) {
        let mut file = good().build();
        put(&mut file, TestElf::program_header(index), &header);
        file.truncate(length);
        if let Ok(image) = Image::parse(&file) {
            check(&image, file.len());
        }
    }

    #[test]
    fn random_bytes_behind_the_magic_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let file = [b"\x7fELF\x02\x01\x01".as_slice(), &bytes].concat();
        if let Ok(image) = Image::parse(&file) {
            check(&image, file.len());
        }
    }
}
