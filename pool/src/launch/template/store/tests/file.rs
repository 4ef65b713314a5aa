//! The format: what was written is read, and nothing else.

use proptest::prelude::*;
use sha2::{Digest, Sha256};

use super::super::super::STATE_MAX;
use super::*;

fn small() -> Vec<u8> {
    written(&template(b"state", [(3, 1)]), &key())
}

fn read(file: &[u8]) -> Result<Template, Defect> {
    format::read(file, file.len() as u64, &key())
}

/// `file` with another part at `at`, and a hash that is right.
fn forged(file: &[u8], at: usize, part: &[u8]) -> Vec<u8> {
    let mut file = file[..file.len() - 32].to_vec();
    file[at..at + part.len()].copy_from_slice(part);
    hashed(file)
}

fn hashed(mut file: Vec<u8>) -> Vec<u8> {
    let hash = Sha256::digest(&file);
    file.extend_from_slice(&hash);
    file
}

/// Where the runs of pages of [`small`] begin: one run, one page and the hash are behind it.
fn runs_at(file: &[u8]) -> usize {
    file.len() - 32 - BYTES - 8
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn what_was_written_is_read(
        state in proptest::collection::vec(any::<u8>(), 0..2000),
        contents in proptest::collection::btree_map(0..PAGES, any::<u8>(), 0..40),
    ) {
        let before = template(&state, contents);
        let after = read(&written(&before, &key())).unwrap();
        prop_assert_eq!(&after.state, &state);
        prop_assert_eq!(pages::extents(&after.memory).unwrap(), pages::extents(&before.memory).unwrap());
        prop_assert_eq!(pages::changed(&before.memory, &after.memory).unwrap(), []);
        prop_assert_eq!(after.memory.metadata().unwrap().len(), PAGES * PAGE);
        prop_assert!(after.memory.write_all_at(b"x", 0).is_err(), "it is sealed");
    }

    #[test]
    fn noise_behind_the_magic_is_refused(noise in proptest::collection::vec(any::<u8>(), 0..300)) {
        let file = [&b"weirsnap\x01\0\0\0"[..], &noise].concat();
        prop_assert!(read(&hashed(file)).is_err());
    }
}

#[test]
fn every_truncation_and_any_byte_behind_the_end_is_refused() {
    let file = small();
    for length in 0..file.len() {
        read(&file[..length]).unwrap_err();
        // Also if the file gets shorter after its length was asked for.
        format::read(&file[..length], file.len() as u64, &key()).unwrap_err();
    }
    let error = read(&[&file[..], b"x"].concat()).unwrap_err();
    assert_eq!(error.to_string(), "has 4097 bytes of pages, not 4096");
}

#[test]
fn a_flipped_bit_in_any_byte_is_refused() {
    let mut file = small();
    for at in 0..file.len() {
        file[at] ^= 1 << (at % 8);
        read(&file).unwrap_err();
        file[at] ^= 1 << (at % 8);
    }
    read(&file).unwrap();
}

#[test]
fn lengths_and_pages_are_checked_though_the_hash_is_right() {
    let file = small();
    let refused = |at, part: &[u8]| read(&forged(&file, at, part)).unwrap_err().to_string();
    assert_eq!(refused(0, b"W"), "is no snapshot");
    assert_eq!(refused(8, &[2]), "has format 2, not 1");
    assert_eq!(refused(12, &[0xff; 4]), "has a header of 4294967295 bytes");
    assert_eq!(refused(12, &(1u32 << 20).to_le_bytes()), "is cut off");
    assert!(refused(12, &[1, 0, 0, 0]).starts_with("has a header that cannot"));
    let run = |first: u32, count: u32| [first.to_le_bytes(), count.to_le_bytes()].concat();
    let runs = runs_at(&file);
    for (first, count) in [(64, 1), (3, 0), (u32::MAX, u32::MAX), (63, 2)] {
        let error = refused(runs, &run(first, count));
        assert_eq!(error, format!("has pages in no order or beyond its memory, first at page {first}"));
    }
    assert_eq!(refused(runs, &run(62, 2)), "has 4096 bytes of pages, not 8192");
    // The header's last bytes: five bytes of state, one run.
    let (state, count) = (runs - 5 - 2, runs - 5 - 1);
    assert_eq!(file[state..=count], [5, 1]);
    assert_eq!(refused(count, &[0]), "has 4104 bytes of pages, not 0");
    assert_eq!(refused(state, &[4]), "has pages in no order or beyond its memory, first at page 869");
    let empty = written(&template(b"", []), &key());
    for part in [[0, 1], [1, 0]] {
        let error = read(&forged(&empty, empty.len() - 32 - 2, &part)).unwrap_err();
        assert!(matches!(error, Defect::Cut), "{part:?}: {error}");
    }
}

#[test]
fn runs_have_to_ascend_with_gaps_between_them() {
    let file = written(&template(b"", [(3, 1), (9, 2)]), &key());
    let second = runs_at(&file) - BYTES;
    for first in [0u32, 3, 4] {
        let error = read(&forged(&file, second, &first.to_le_bytes())).unwrap_err();
        assert!(matches!(error, Defect::Run(page) if page == first), "{error}");
    }
    read(&forged(&file, second, &5u32.to_le_bytes())).unwrap();
}

#[test]
fn a_state_that_is_too_long_is_not_read() {
    let error = read(&written(&template(&vec![0; STATE_MAX + 1], []), &key())).unwrap_err();
    assert!(matches!(error, Defect::State(length) if length as usize == STATE_MAX + 1), "{error}");
    read(&written(&template(&vec![0; STATE_MAX], []), &key())).unwrap();
}

#[test]
fn a_snapshot_of_anything_else_has_another_name_and_is_refused() {
    let ours = key();
    for (part, key) in foreign() {
        assert_ne!(key.file_name().unwrap(), ours.file_name().unwrap());
        let error = read(&written(&template(b"", []), &key)).unwrap_err();
        assert_eq!(error.to_string(), format!("is of another {part}"));
    }
}
