//! Snapshots from the disk: whole ones come back, all others are refused.

use std::fs::{self, Permissions};
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};

use proptest::prelude::*;
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use weir_vmm::memory::PAGE;

use super::super::{STATE_MAX, pages};
use super::*;
use crate::fake;

const PAGES: u64 = 64;
/// Of a page.
const BYTES: usize = 4096;

fn host() -> Host {
    let part = |part: &str| part.to_owned();
    Host {
        vendor: part("Weir"),
        family: part("1"),
        model: part("2"),
        stepping: part("3"),
        flags: part("fpu sse"),
        kernel: part("6.1"),
    }
}

fn pool() -> Pool {
    Pool { memory: PAGES * PAGE, env: [("A".to_owned(), "b".to_owned())].into(), ..fake::pool("p") }
}

fn key() -> Key {
    Key::new(&pool(), [7; 32], &host())
}

/// A template with `state`, whose memory has these pages, each full of its byte.
fn template(state: &[u8], contents: impl IntoIterator<Item = (u64, u8)>) -> Template {
    let memory = pages::create("template", PAGES * PAGE).unwrap();
    for (page, byte) in contents {
        memory.write_all_at(&[byte; BYTES], page * PAGE).unwrap();
    }
    pages::freeze(&memory).unwrap();
    Template { memory, state: state.to_vec(), working_set: Vec::new() }
}

fn written(template: &Template, key: &Key) -> Vec<u8> {
    let mut file = Vec::new();
    format::write(&mut file, key, template).unwrap();
    file
}

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

/// Keys that differ from [`key`], each in what it says.
fn foreign() -> Vec<(&'static str, Key)> {
    let with = |change: &dyn Fn(&mut Key)| {
        let mut key = key();
        change(&mut key);
        key
    };
    vec![
        ("version of weir", with(&|key| key.weir.push('1'))),
        ("guest abi", with(&|key| key.abi += 1)),
        ("state format", with(&|key| key.state += 1)),
        ("cpu or kernel", with(&|key| key.host.vendor.push('x'))),
        ("cpu or kernel", with(&|key| key.host.family.push('1'))),
        ("cpu or kernel", with(&|key| key.host.model.push('1'))),
        ("cpu or kernel", with(&|key| key.host.stepping.push('1'))),
        ("cpu or kernel", with(&|key| key.host.flags.push_str(" avx"))),
        ("cpu or kernel", with(&|key| key.host.kernel.push('1'))),
        ("image", with(&|key| key.image[31] ^= 1)),
        ("memory size", with(&|key| key.memory += PAGE)),
        ("number of cpus", with(&|key| key.vcpus += 1)),
        ("pool", with(&|key| key.pool.push('q'))),
        ("port", with(&|key| key.port += 1)),
        ("environment", with(&|key| key.env.clear())),
        ("arguments", with(&|key| key.args.push("x".to_owned()))),
    ]
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

#[test]
fn only_names_of_snapshots_are_ours() {
    let name = key().file_name().unwrap();
    assert!(key::is_ours(&name) && key::is_ours(&key::temporary(&name)), "{name}");
    let upper = name.to_uppercase();
    for other in [
        "",
        ".",
        "p",
        &name[1..],
        &name[..name.len() - 1],
        &upper,
        &format!("{name}.bak"),
        &format!("../{name}"),
    ] {
        assert!(!key::is_ours(other), "{other}");
    }
}

fn private() -> TempDir {
    tempfile::Builder::new().permissions(Permissions::from_mode(0o700)).tempdir().unwrap()
}

/// A store for the pool of [`pool`], with an image of `image`.
fn store(directory: &Path, image: &[u8]) -> Arc<Store> {
    let pools = BTreeMap::from([("p".to_owned(), Arc::new(pool()))]);
    let images = BTreeMap::from([("p".to_owned(), crate::launch::seal("p", image).unwrap())]);
    let snapshots = Snapshots { directory: Directory::open(directory).unwrap(), host: host() };
    let metrics = LaunchMetrics::register(&prometheus::Registry::new()).unwrap();
    Arc::new(Store::new(snapshots, &pools, &images, metrics).unwrap())
}

fn files(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

impl Store {
    fn file(&self) -> std::path::PathBuf {
        self.directory.path(&self.places["p"].name)
    }

    /// How often each of these was counted: loaded, saved, rejected, failed.
    fn counts(&self) -> [u64; 4] {
        use SnapshotResult::{Failed, Loaded, Rejected, Saved};
        [Loaded, Saved, Rejected, Failed].map(|result| self.metrics.snapshots("p", result))
    }
}

#[tokio::test]
async fn a_template_is_kept_and_found_again_but_not_with_another_image() {
    let directory = private();
    let path = &directory.path().join("deep/snapshots");
    let first = store(path, b"image");
    assert!(first.load("p").await.is_none());
    first.save("p", Arc::new(template(b"old", [(1, 1)]))).await;
    first.save("p", Arc::new(template(b"state", [(2, 5)]))).await;
    assert_eq!(first.counts(), [0, 2, 0, 0]);
    assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o7777, 0o700);
    assert_eq!(fs::metadata(first.file()).unwrap().permissions().mode() & 0o7777, 0o600);

    let second = store(path, b"image");
    let kept = second.load("p").await.unwrap();
    assert_eq!((&kept.state[..], pages::resident(&kept.memory).unwrap()), (&b"state"[..], PAGE));
    second.accept("p");
    assert_eq!(second.counts(), [1, 0, 0, 0]);

    let third = store(path, b"another");
    assert!(third.load("p").await.is_none());
    assert_eq!(third.counts(), [0; 4]);
    assert_eq!(files(path), [""; 0], "that of the first image is of no use any more");
}

#[tokio::test]
async fn what_is_damaged_is_counted_removed_and_written_anew() {
    let directory = private();
    let store = store(directory.path(), b"image");
    let good = Arc::new(template(b"state", [(2, 5)]));
    let foreign = written(&good, &foreign()[3].1);
    for (damaged, contents) in [&b""[..], b"weirsnap", &foreign].into_iter().enumerate() {
        fs::write(store.file(), contents).unwrap();
        fs::set_permissions(store.file(), Permissions::from_mode(0o600)).unwrap();
        assert!(store.load("p").await.is_none());
        assert_eq!(files(directory.path()), [""; 0]);
        store.save("p", good.clone()).await;
        let count = damaged as u64 + 1;
        assert_eq!(store.counts(), [0, count, count, 0]);
        assert!(store.load("p").await.is_some());
    }
}

#[tokio::test]
async fn what_others_can_change_or_is_no_file_is_not_read() {
    let directory = private();
    let store = store(directory.path(), b"image");
    store.save("p", Arc::new(template(b"state", []))).await;
    let aside = directory.path().join("aside");
    fs::set_permissions(store.file(), Permissions::from_mode(0o660)).unwrap();
    assert!(store.load("p").await.is_none());
    store.save("p", Arc::new(template(b"state", []))).await;
    fs::rename(store.file(), &aside).unwrap();
    symlink(&aside, store.file()).unwrap();
    assert!(store.load("p").await.is_none());
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, store.file(), rustix::fs::FileType::Fifo, mode, 0).unwrap();
    assert!(store.load("p").await.is_none(), "and nobody waits for a writer");
    assert_eq!(store.counts(), [0, 2, 3, 0]);
    assert_eq!(files(directory.path()), ["aside"], "what a link points to stays");
}

#[tokio::test]
async fn a_directory_that_is_gone_is_only_counted() {
    let directory = private();
    let path = directory.path().join("snapshots");
    let store = store(&path, b"image");
    fs::remove_dir(&path).unwrap();
    store.save("p", Arc::new(template(b"state", []))).await;
    assert!(store.load("p").await.is_none());
    assert_eq!(store.counts(), [0, 0, 0, 1]);
}

#[test]
fn a_write_that_fails_leaves_what_was_there_and_nothing_else() {
    let directory = private();
    let opened = Directory::open(directory.path()).unwrap();
    let name = key().file_name().unwrap();
    fs::write(directory.path().join(key::temporary(&name)), "of a weir that was killed").unwrap();
    opened.replace(&name, |mut file| io::Write::write_all(&mut file, b"whole")).unwrap();
    let full = opened.replace(&name, |mut file| {
        io::Write::write_all(&mut file, b"half")?;
        Err(io::ErrorKind::StorageFull.into())
    });
    assert_eq!(full.unwrap_err().kind(), io::ErrorKind::StorageFull);
    assert_eq!(files(directory.path()), [name.as_str()]);
    assert_eq!(fs::read(opened.path(&name)).unwrap(), b"whole");
}

#[test]
fn leftovers_are_removed_and_nothing_else() {
    let directory = private();
    let ours = Key::new(&pool(), Sha256::digest(b"image").into(), &host()).file_name().unwrap();
    let other = key().file_name().unwrap();
    for name in [&ours, &key::temporary(&ours), &other, &key::temporary(&other), "notes", "p.weir-snapshot"] {
        fs::write(directory.path().join(name), "").unwrap();
    }
    store(directory.path(), b"image");
    assert_eq!(files(directory.path()), ["notes", &ours, "p.weir-snapshot"]);
}

#[test]
fn a_directory_that_others_can_use_or_that_is_none_is_refused() {
    let directory = private();
    let refused = |path: &Path| Directory::open(path).unwrap_err().to_string();
    let path = directory.path().join("snapshots");
    Directory::open(&path).unwrap();
    for mode in [0o710, 0o701, 0o770, 0o777, 0o1777, 0o740, 0o702] {
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        let expected =
            format!("directory of snapshots {path:?} has mode {mode:04o}, others can use it: chmod 0700 it");
        assert_eq!(refused(&path), expected);
    }
    fs::set_permissions(&path, Permissions::from_mode(0o700)).unwrap();
    Directory::open(&path).unwrap();
    let link = directory.path().join("link");
    symlink(&path, &link).unwrap();
    for link in [link.clone(), link.join(""), link.join(".")] {
        assert!(refused(&link).starts_with("open directory of snapshots"), "{link:?}");
    }
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    assert!(refused(&file).starts_with("open directory of snapshots"));
    assert!(refused(&file.join("below")).starts_with("create directory of snapshots"));
}
